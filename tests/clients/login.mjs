// Logging in on the web page in a real browser, on a daemon that has tokens.
//
//     node login.mjs URL TOKEN ADDRESS [--read | --others | --expires]
//
// Without a flag, TOKEN of scope watch: fails to log in, logs in, adds ADDRESS, and goes through
// what may end a session or must not. It asks for what it cannot do itself:
//
// RESTART   the daemon, on the same port
// REVOKE    the token
//
// --read     TOKEN of scope read: what the page shows of what it may not do
// --others   what a page, and a server, on another port of the same host gain: {"cookie": …, "page": {…}, "server": {…}}
// --expires  TOKEN is a file, which has the token some time after TOKEN was printed: what the page says when it expires
//
// Exit code 0 only if everything was as it must be; the last line is what was seen, as JSON.

import { existsSync, readFileSync } from "node:fs";
import { createServer, request } from "node:http";

import { openChromium } from "./chromium.mjs";

const [url, token, address, flag] = process.argv.slice(2);
if (!address) {
  console.error("usage: node login.mjs URL TOKEN ADDRESS [--read | --others | --expires]");
  process.exit(2);
}
const { origin, hostname, port } = new URL(url);
const field = (page) => page.getByLabel("Token");
const connected = (page) => page.locator('body[data-connection="connected"]:not([data-login])').waitFor();
const sessionCookie = async () => (await context.cookies(url)).find(({ name }) => name.startsWith(`satwatch_${port}_`));

const { context, close } = await openChromium();
const faults = [];
try {
  const page = await open();
  const seen = await { undefined: whole, "--read": reader, "--others": others, "--expires": expires }[flag](page);
  console.log(JSON.stringify(seen));
} catch (error) {
  faults.push(String(error.stack));
} finally {
  await close();
}
for (const fault of faults) console.error(fault);
process.exit(faults.length === 0 ? 0 : 1);

// ---- what a person does and sees

async function open() {
  const page = await context.newPage();
  page.setDefaultTimeout(30_000);
  page.on("pageerror", (error) => faults.push(`exception in the page: ${error.message}`));
  page.on("request", (request) => request.url().includes(token) && faults.push(`the token is in a URL: ${request.url()}`));
  await page.goto(url);
  return page;
}

/// Waits for the form: it has the focus, and nothing of what is watched can be seen. What it says.
async function wanted(page) {
  await field(page).waitFor();
  await holds(page, "the focus is in the field", () => document.activeElement.id === "token");
  for (const hidden of ["main", ".facts", "#notice", "#who"]) {
    if (await page.locator(hidden).isVisible()) throw new Error(`${hidden} can be seen without logging in`);
  }
  return page.locator("#login-error").textContent();
}

/// With the keyboard alone.
async function logIn(page, text) {
  await page.keyboard.type(text);
  await page.keyboard.press("Enter");
}

async function holds(page, what, condition, argument) {
  await page.waitForFunction(condition, argument).catch(() => {
    throw new Error(`not so: ${what}`);
  });
}

function check(what, is) {
  if (!is) throw new Error(`not so: ${what}`);
}

async function whole(page) {
  check("nobody has logged in, so nothing is said", (await wanted(page)) === "");
  await logIn(page, "sw_wrong");
  await page.getByRole("alert").filter({ hasText: "This is no token" }).waitFor();
  check("the field is marked", (await field(page).getAttribute("aria-invalid")) === "true");
  await wanted(page);
  await logIn(page, token); // What was wrong is selected, and typed over.
  await connected(page);
  const who = await page.locator("#who-text").textContent();
  await holds(page, "the focus went on", () => document.activeElement.id === "address");
  await keepsNoToken(page);
  await page.keyboard.type(address);
  await page.keyboard.press("Enter");
  const card = page.locator(`#list [data-key="${address}"]`);
  await card.waitFor();

  await page.reload();
  await connected(page);
  await card.filter({ hasText: /\d\.\d{3}/ }).waitFor();
  await page.evaluate(() => (window.same = true));
  console.log("RESTART");
  await page.locator("#connection").filter({ hasText: "Reconnecting" }).waitFor();
  await connected(page);
  check("it came back without a reload", await page.evaluate(() => window.same));

  const other = await open();
  await connected(other);
  await page.getByRole("button", { name: "Log out" }).click();
  check("no error is said after logging out", (await wanted(page)) === "");
  const elsewhere = await wanted(other);
  check("the cookie was taken back", !(await sessionCookie()));
  await other.reload();
  check("logging out lasts", (await wanted(other)) === "");
  check("a page that lost its addresses has none", (await page.locator("#list > li").count()) <= 1);

  await page.bringToFront();
  await logIn(page, token);
  await connected(page);
  await connected(other);
  await card.filter({ hasText: /\d\.\d{3}/ }).waitFor();
  console.log("REVOKE");
  const revoked = await wanted(page);
  await wanted(other);
  await logIn(page, token);
  await page.getByRole("alert").filter({ hasText: "not known here" }).waitFor();
  return { who, elsewhere, revoked, faults };
}

async function keepsNoToken(page) {
  const kept = await page.evaluate(() => JSON.stringify([{ ...localStorage }, { ...sessionStorage }, location.href, document.cookie]));
  check("the token is kept nowhere", !kept.includes(token) && !kept.includes("satwatch_"));
  check("the field is empty", (await field(page).inputValue()) === "");
  const { httpOnly, sameSite, secure, path, value, expires } = await sessionCookie();
  check("the cookie is for the daemon alone", httpOnly && sameSite === "Strict" && !secure && path === "/");
  check("the cookie stays as long as the session", Math.abs(expires - Date.now() / 1000 - 30 * 86_400) < 3_600);
  check("the cookie is not the token", !value.includes(token) && /^[0-9a-f]{64}$/.test(value));
}

async function reader(page) {
  await wanted(page);
  await logIn(page, token);
  await connected(page);
  await page.getByRole("button", { name: "Start monitoring" }).waitFor();
  await page.locator(`#list [data-key="${address}"]`).filter({ hasText: /\d\.\d{3}/ }).waitFor();
  const disabled = (locator) => locator.isDisabled();
  // Searching is allowed to everybody.
  await page.getByLabel("add an address").fill("bcrt1qsomethingelsethatisnotwatched");
  await page.getByRole("button", { name: "Watch", exact: true }).waitFor();
  return {
    who: await page.locator("#who-text").textContent(),
    disabled: [
      await disabled(page.getByLabel("Label (optional)")),
      await disabled(page.getByRole("button", { name: "Watch", exact: true })),
      await disabled(page.getByRole("button", { name: "Start monitoring" })),
    ],
    add: await page.locator("#add-why").textContent(),
    start: await page.locator("#notice-text").textContent(),
  };
}

async function expires(page) {
  await wanted(page);
  console.log("TOKEN"); // Not before, so that it lasts until the page is connected.
  while (!existsSync(token)) await new Promise((later) => setTimeout(later, 50));
  await logIn(page, readFileSync(token, "utf8"));
  await connected(page);
  return { expired: await wanted(page), faults };
}

// ---- another port of the same host

async function others(page) {
  await wanted(page);
  await logIn(page, token);
  await connected(page);
  let handed;
  const server = createServer((asked, answer) => {
    handed ??= asked.headers.cookie;
    answer.setHeader("Content-Type", "text/html").end("<!doctype html><title>another page</title><iframe name=sink></iframe>");
  });
  await new Promise((listening) => server.listen(0, hostname, listening));
  const foreign = await context.newPage();
  await foreign.goto(`http://${hostname}:${server.address().port}/`);
  const attempts = await foreign.evaluate(attempt, { origin, token, address });
  attempts.form = await sendForm(foreign);
  const key = await page.evaluate(() => localStorage.getItem("satwatch.page_key"));
  const replayed = await replay(handed, key);
  server.close();
  // None of it has ended the session either.
  await page.reload();
  await connected(page);
  const { name, value } = await sessionCookie();
  return { cookie: handed === `${name}=${value}`, page: attempts, server: replayed };
}

async function sendForm(foreign) {
  const answered = foreign.waitForEvent("response", (answer) => answer.url().startsWith(`${origin}/start`));
  await foreign.evaluate((origin) => {
    const form = Object.assign(document.createElement("form"), { action: `${origin}/start`, method: "post", target: "sink" });
    document.body.append(form);
    form.submit();
  }, origin);
  return (await answered).status();
}

/// A server says whatever it likes.
async function replay(cookie, key) {
  const forged = { Origin: origin, "Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty" };
  const ask = (method, path, headers, body) =>
    new Promise((resolve, reject) => {
      const asked = request(`${origin}${path}`, { method, headers: { ...forged, ...headers } }, (answer) => {
        let text = "";
        answer.on("data", (part) => (text += part));
        answer.on("end", () => resolve({ status: answer.statusCode, text }));
      });
      asked.on("error", reject).end(body);
    });
  const status = async (...what) => (await ask(...what)).status;
  const poll = async (payload) => {
    const path = "/socket.io/?EIO=4&transport=polling";
    const { sid } = JSON.parse((await ask("GET", path, { Cookie: cookie })).text.slice(1));
    await ask("POST", `${path}&sid=${sid}`, { Cookie: cookie }, `40${payload}`);
    return (await ask("GET", `${path}&sid=${sid}`, { Cookie: cookie })).text;
  };
  const id = cookie.split("=")[1];
  return {
    status: await status("GET", "/status", { Cookie: cookie }),
    addresses: await status("GET", "/addresses", { Cookie: cookie, "Satwatch-Page": id }),
    start: await status("POST", "/start", { Cookie: cookie, "Satwatch-Page": "0".repeat(64) }),
    bearer: await status("GET", "/status", { Authorization: `Bearer ${id}` }),
    out: await status("DELETE", "/session", { Cookie: cookie }),
    polling: await poll(""),
    guessed: await poll(JSON.stringify({ page_key: id })),
    // What would do, if it were known: so the other attempts fail for want of the page's half.
    both: await status("GET", "/status", { Cookie: cookie, "Satwatch-Page": key }),
    bothPolling: (await poll(JSON.stringify({ page_key: key }))).slice(0, 2),
  };
}

// ---- run in a page of another port

async function attempt({ origin, token, address }) {
  // The browser hides answers to requests with credentials, as it is told to, after it has sent them or before.
  const ask = (path, options) =>
    fetch(origin + path, { credentials: "include", ...options }).then(
      (answer) => answer.status,
      () => "hidden",
    );
  const json = (method, body) => ({ method, headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
  const webSocket = new Promise((resolve) => {
    const socket = new WebSocket(`${origin.replace("http", "ws")}/socket.io/?EIO=4&transport=websocket`);
    socket.onmessage = ({ data }) => {
      if (data[0] === "0") return socket.send("40");
      resolve(data);
      socket.close();
    };
    socket.onerror = () => resolve("closed");
  });
  const polling = async () => {
    const place = `${origin}/socket.io/?EIO=4&transport=polling`;
    const send = (path, options) => fetch(path, { credentials: "same-origin", ...options }).then((answer) => answer.text());
    const { sid } = JSON.parse((await send(place)).slice(1));
    await send(`${place}&sid=${sid}`, { method: "POST", body: "40" });
    return send(`${place}&sid=${sid}`);
  };
  return {
    fetch: await ask("/status"),
    withoutCors: await ask("/status", { mode: "no-cors" }),
    key: await ask("/status", { headers: { "Satwatch-Page": "0".repeat(64) } }),
    add: await ask("/add_address", json("POST", { address })),
    logIn: await ask("/session", json("POST", { token })),
    logInWithout: await ask("/session", { ...json("POST", { token }), credentials: "omit" }),
    without: await ask("/status", { credentials: "omit" }),
    logOut: await ask("/session", { method: "DELETE" }),
    webSocket: await webSocket,
    polling: await polling().catch((error) => String(error)),
    stored: Object.keys(localStorage).length,
  };
}
