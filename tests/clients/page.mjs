// The web page in a real browser: adds ADDRESS through the form, waits until a payment appears in
// the feed and in the balance, and prints what it sees as one line of JSON.
//
//     node page.mjs URL ADDRESS [--confirm | --restart]
//
// READY            the page shows the whole balance: pay to ADDRESS now
// SEEN             the payment is there; with --confirm mine a block now, with --restart stop the daemon now
// RECONNECTING     with --restart: the page says so; start the daemon again now, and pay in between or after
// {"balance": …}   the payment is there and, with --confirm, confirmed; with --restart it is the second one
//
// Exit code 0, and the JSON, only if nothing went wrong on the way: a request to another origin, a
// failing request, an error in the console or an exception in the page are failures (the first two
// kinds not while the daemon is stopped).

import { openChromium } from "./chromium.mjs";

const LIMIT_MS = 60_000;
const [url, address, ...flags] = process.argv.slice(2);
if (!url || !address) {
  console.error("usage: node page.mjs URL ADDRESS [--confirm | --restart]");
  process.exit(2);
}

const { origin } = new URL(url);
const faults = [];
let away = false; // The daemon is stopped on purpose.
const { context, close } = await openChromium();
let seen;

try {
  const page = context.pages()[0] ?? (await context.newPage());
  page.setDefaultTimeout(LIMIT_MS);
  watchForFaults(page);
  seen = await use(page);
} catch (error) {
  faults.push(String(error));
} finally {
  away = true; // What is under way when the browser closes does not count.
  await close();
}

if (faults.length === 0) console.log(JSON.stringify(seen));
for (const fault of faults) console.error(fault);
process.exit(faults.length === 0 ? 0 : 1);

async function use(page) {
  const response = await page.goto(url);
  const policy = (await response.allHeaders())["content-security-policy"] ?? "";
  if (!policy.includes("default-src 'none'")) faults.push(`the page comes without its content security policy: "${policy}"`);
  await page.locator('body[data-connection="connected"]').waitFor();

  await page.getByLabel("add an address").fill(address);
  await page.getByLabel("Label (optional)").fill("test");
  await page.getByRole("button", { name: "Watch", exact: true }).click();
  const whole = page.locator(`#detail [data-key="${address}"]:not(.partial)`);
  await whole.filter({ hasText: /\d\.\d{3}/ }).waitFor();
  const before = await look(page);
  console.log("READY");
  let payment = await nextPayment(page, before);
  const between = await look(page);
  away = flags.includes("--restart");
  console.log("SEEN");

  if (flags.includes("--confirm")) {
    await page.waitForFunction(isConfirmed, { address, txid: payment.txid });
    payment.status = await page.locator(`#feed [data-subject="${address}"][data-txid="${payment.txid}"] .status`).textContent();
  }
  if (flags.includes("--restart")) {
    await page.locator("#connection").filter({ hasText: "Reconnecting" }).waitFor();
    console.log("RECONNECTING");
    await page.locator('body[data-connection="connected"]').waitFor();
    away = false;
    payment = await nextPayment(page, between);
  }
  return { ...(await look(page)), before: before.balance, payment };
}

/// Waits for a payment that `before` does not have, and for the balance to hold it.
async function nextPayment(page, before) {
  const found = await page.waitForFunction(findPayment, { address, older: before.received });
  const payment = await found.jsonValue();
  payment.amount = satoshi(payment.amount);
  // At least, because more payments may come before anyone looks.
  const expected = String(BigInt(before.balance) + BigInt(payment.amount));
  await page.waitForFunction(showsAtLeast, { address, expected });
  return payment;
}

/// What a person sees. Amounts as text, in satoshi.
async function look(page) {
  const card = page.locator(`#detail [data-key="${address}"]`);
  const text = (locator) => locator.textContent();
  const received = page.locator(`#feed [data-way=in][data-subject="${address}"]`);
  return {
    connection: await text(page.locator("#connection")),
    network: await text(page.locator("#network")),
    height: Number(/block ([\d\u202f]+)/.exec(await text(page.locator("#following")))?.[1].replace(/\D/g, "")),
    label: await text(card.locator("#detail-title")),
    balance: satoshi(await text(card.locator(".value"))),
    confirmed: satoshi(await text(card.locator(".confirmed"))),
    unconfirmed: satoshi(await text(card.locator(".unconfirmed"))),
    received: await received.evaluateAll((rows) => rows.map((row) => row.dataset.txid)),
  };
}

function watchForFaults(page) {
  const isOurs = (address) => address.startsWith(`${origin}/`);
  const fault = (text) => faults.push(text);
  const broken = (text) => away || faults.push(text);
  page.on("request", (request) => isOurs(request.url()) || fault(`request to elsewhere: ${request.url()}`));
  page.on("websocket", (socket) => fault(`WebSocket: ${socket.url()}`));
  page.on("requestfailed", (request) => broken(`request failed: ${request.url()}: ${request.failure()?.errorText}`));
  page.on("response", (response) => response.status() < 400 || broken(`${response.status()} from ${response.url()}`));
  page.on("console", (message) => message.type() === "error" && broken(`console error: ${message.text()}`));
  page.on("pageerror", (error) => fault(`exception in the page: ${error.message}`));
}

/// "−0.123 456 78" (also with "+") as satoshi, in digits.
function satoshi(text) {
  const found = /^([+−]?)(\d+)\.(\d{8})$/.exec(text.replace(/\s/g, ""));
  if (!found) throw new Error(`not an amount: "${text}"`);
  return String(BigInt(found[2] + found[3]) * (found[1] === "−" ? -1n : 1n));
}

// ---- run in the page

function findPayment({ address, older }) {
  const rows = [...document.querySelectorAll("#feed [data-way=in]")];
  const row = rows.findLast((row) => row.dataset.subject === address && !older.includes(row.dataset.txid));
  const text = (selector) => row.querySelector(selector).textContent;
  return row && { txid: row.dataset.txid, amount: text(".amount"), status: text(".status") };
}

/// In the feed and in the balance.
function isConfirmed({ address, txid }) {
  const status = document.querySelector(`#feed [data-subject="${address}"][data-txid="${txid}"] .status`).textContent;
  const unconfirmed = document.querySelector(`#detail [data-key="${address}"] .unconfirmed`).textContent;
  return status === "1 of 6 confirmations" && unconfirmed.replace(/\s/g, "") === "0.00000000";
}

function showsAtLeast({ address, expected }) {
  const text = document.querySelector(`#detail [data-key="${address}"] .value`).textContent.replace(/\s/g, "");
  return /^\d+\.\d{8}$/.test(text) && BigInt(text.replace(".", "")) >= BigInt(expected);
}
