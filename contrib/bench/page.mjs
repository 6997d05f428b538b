// What the page's main thread does with 10 000 watched addresses, whose list is scrolled through, while 100 events a
// second come for ten seconds: in CPU time, from Chromium's own trace. The daemon is pretended, the page is src/web.
//
//     NODE_PATH=~/.cache/satwatch/js/node_modules node contrib/bench/page.mjs

import { existsSync, readFileSync } from "node:fs";

import { openChromium } from "../../tests/clients/chromium.mjs";

const [ADDRESSES, EVENTS_A_SECOND, SECONDS, PAGE] = [10_000, 100, 10, 1000];
const WEB = new URL("../../src/web/", import.meta.url);
const TYPES = { html: "text/html", js: "text/javascript", css: "text/css", svg: "image/svg+xml" };
const coverage = { from_height: 0, complete: true, utxos_complete: true, pending: false };
const watched = Array.from({ length: ADDRESSES }, (_, at) => ({
  address: `bcrt1q${String(at).padStart(38, "q")}`,
  label: at % 10 ? "" : `Order ${at}`,
  added: at,
  balance: at,
  confirmed_balance: at,
  unconfirmed_balance: 0,
  transaction_count: 0,
  coverage,
}));
const tip = { height: 100, hash: "0".repeat(64), time: Date.now() / 1000 };
let number = 0; // Of the last event.
let waiting = []; // Events that were not asked for yet.

function happen() {
  number += 1;
  const one = watched[(number * 37) % ADDRESSES];
  const timestamp = Date.now() / 1000;
  const tx = { txid: number.toString(16).padStart(64, "a"), net: number, received: number, sent: 0, status: "mempool", first_seen: timestamp };
  one.balance += number;
  const { address, balance: new_balance } = one;
  const [event, data] = number % 2 ? ["new_transactions", { transactions: [tx] }] : ["balance_change", { new_balance }];
  waiting.push({ cursor: `c-${number}`, event, data: { address, timestamp, ...data } });
}

async function answer(url) {
  const [, first, key] = url.pathname.split("/");
  const at = () => `c-${number}`;
  if (first === "addresses") {
    const from = watched.findIndex(({ address }) => address === url.searchParams.get("after")) + 1;
    const addresses = watched.slice(from, from + PAGE);
    return { addresses, total: ADDRESSES, next: from + PAGE < ADDRESSES ? addresses.at(-1).address : null, cursor: at() };
  }
  if (first === "descriptors") return { descriptors: [], total: 0, next: null, cursor: at() };
  if (first === "balance") return { ...watched.find(({ address }) => address === key), immature: 0 };
  if (first === "transactions") return { transactions: [], next: null, total: 0 };
  if (first === "status") return { realtime_monitoring: true, following: true, network: "regtest", data_age: 0, tip, zmq: {}, address_count: ADDRESSES, descriptor_count: 0, cursor: at() };
  if (first === "token") return { authentication: false, scopes: ["read", "watch", "admin"] };
  for (const until = Date.now() + url.searchParams.get("wait") * 1000; waiting.length === 0 && Date.now() < until; ) await new Promise((later) => setTimeout(later, 10));
  return { events: waiting.splice(0), next: at(), head: at() };
}

async function serve(route) {
  const url = new URL(route.request().url());
  const file = new URL(url.pathname === "/" ? "index.html" : url.pathname.slice(1), WEB);
  const isFile = /\.(html|js|css|svg)$/.test(file.pathname) && existsSync(file);
  const body = isFile ? readFileSync(file) : JSON.stringify(await answer(url));
  const contentType = isFile ? TYPES[file.pathname.split(".").pop()] : "application/json";
  await route.fulfill({ body, contentType }).catch(() => {}); // The page may have gone.
}

const { context, close } = await openChromium();
const page = await context.newPage();
await page.setViewportSize({ width: 1280, height: 800 });
await page.route("**/*", serve);
await page.goto("http://satwatch.test/");
await page.locator("#watched-count").filter({ hasText: /10.000 addresses/ }).waitFor();
await page.locator("#list li").first().waitFor();

const events = [];
const devtools = await context.newCDPSession(page);
devtools.on("Tracing.dataCollected", ({ value }) => events.push(...value));
await devtools.send("Tracing.start", { transferMode: "ReportEvents", traceConfig: { includedCategories: ["toplevel", "devtools.timeline"] } });
await page.evaluate(() => {
  const list = document.querySelector("#list-window");
  const scroll = () => {
    list.scrollTop += 40;
    requestAnimationFrame(scroll);
  };
  scroll();
});
const happening = setInterval(happen, 1000 / EVENTS_A_SECOND);
await new Promise((later) => setTimeout(later, SECONDS * 1000));
clearInterval(happening);
const complete = new Promise((done) => devtools.once("Tracing.tracingComplete", done));
await devtools.send("Tracing.end");
await complete;

const { pid, tid } = events.find(({ name }) => name === "FireAnimationFrame");
const main = events.filter((event) => event.pid === pid && event.tid === tid && event.ph === "X");
for (const [words, name] of [["work of a frame's script", "FireAnimationFrame"], ["tasks", "RunTask"]]) {
  const times = main.filter((event) => event.name.endsWith(name)).map(({ tdur = 0 }) => tdur / 1000);
  times.sort((a, b) => a - b);
  const at = (share) => times[Math.floor((times.length - 1) * share)].toFixed(1);
  console.log(`${words}: ${times.length}, median ${at(0.5)} ms, 99 % up to ${at(0.99)} ms, longest ${at(1)} ms`);
}
console.log(`${number} events, ${await page.locator("#list li").count()} rows of the list and ${await page.locator("#feed > li").count()} payments in the document`);
await close();
