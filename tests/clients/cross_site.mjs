// A page of another site in a real browser, which tries every way that it has to reach the daemon.
//
//     node cross_site.mjs URL OPEN_URL ADDRESS
//
// OPEN_URL is a daemon that lets pages of all origins in: what gets through there shows that the
// attempts are good. Prints {"closed": {…}, "open": {…}}, of each: what the page "read" by name of
// the attempt ("hidden" if nothing), and the "answers" of the daemon as {method, path, status, how}.
// "rebound" is a page whose name was made to resolve to the daemon, on its port.

import { createServer } from "node:http";

import { openChromium } from "./chromium.mjs";

const [url, openUrl, address] = process.argv.slice(2);
if (!address) {
  console.error("usage: node cross_site.mjs URL OPEN_URL ADDRESS");
  process.exit(2);
}
const server = createServer((request, response) =>
  response.setHeader("Content-Type", "text/html").end("<!doctype html><title>another site</title>"),
);
await new Promise((listening) => server.listen(0, "127.0.0.1", listening));
const { context, close } = await openChromium(["--host-resolver-rules=MAP *.example 127.0.0.1"]);
try {
  console.log(JSON.stringify({ closed: await attack(url), open: await attack(openUrl) }));
} finally {
  await close();
  server.close();
}

async function attack(origin) {
  const page = await context.newPage();
  const answers = [];
  const of = (asked) => {
    const { host, pathname } = new URL(asked.url());
    return host.endsWith(`:${new URL(origin).port}`) && { method: asked.method(), path: pathname, how: asked.resourceType() };
  };
  context.on("response", (answer) => {
    const known = of(answer.request());
    if (known) answers.push({ ...known, status: answer.status() });
  });
  const elsewhere = `http://elsewhere.example:${server.address().port}/`;
  await page.goto(elsewhere);
  const read = await page.evaluate(attempt, { origin, address });
  for (const path of ["/stop", "/add_address"]) {
    for (const enctype of ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"]) {
      await sendForm(page, origin + path, enctype, "frame");
    }
  }
  // The whole window goes there.
  await sendForm(page, `${origin}/stop`, "text/plain", "_self");
  for (const path of ["/status", "/addresses"]) {
    await page.goto(elsewhere);
    await Promise.all([page.waitForURL(`${origin}${path}`), page.evaluate((place) => (location.href = place), origin + path)]);
    read[`navigate ${path}`] = (await page.locator("body").textContent()).includes("watched") ? "read" : "hidden";
  }
  const name = `http://rebound.example:${new URL(origin).port}`;
  await page.goto(`${name}/`);
  read.rebound = await page.evaluate(attempt, { origin: name, address });
  await page.close();
  return { read, answers };
}

async function sendForm(page, action, enctype, target) {
  const answered = page.waitForEvent("response", (answer) => answer.url().startsWith(action));
  await page.evaluate(
    ({ action, enctype, target, address }) => {
      const form = Object.assign(document.createElement("form"), { action, enctype, method: "post" });
      // As text it is JSON.
      form.append(Object.assign(document.createElement("input"), { name: `{"address":"${address}","label":"`, value: '"}' }));
      // One that goes to a frame where another is under way may be given up.
      const frame = Object.assign(document.createElement("iframe"), { name: `frame${document.forms.length}` });
      form.target = target === "_self" ? target : frame.name;
      document.body.append(form, frame);
      form.submit();
    },
    { action, enctype, target, address },
  );
  await (target === "_self" ? page.waitForURL(action) : answered);
}

// ---- run in the page

async function attempt({ origin, address }) {
  const body = JSON.stringify({ address });
  const ask = (path, options) =>
    fetch(origin + path, options).then(
      async (answer) => ((await answer.text()).length > 0 && answer.ok ? "read" : "hidden"),
      () => "hidden",
    );
  const json = { method: "POST", headers: { "Content-Type": "application/json" }, body };
  const plain = { method: "POST", headers: { "Content-Type": "text/plain" }, body, mode: "no-cors" };
  const element = (tag, attributes) =>
    new Promise((resolve) => {
      const made = Object.assign(document.createElement(tag), attributes);
      made.onload = () => resolve(tag === "iframe" ? "hidden" : "read");
      made.onerror = () => resolve("hidden");
      document.body.append(made);
    });
  const webSocket = (query) =>
    new Promise((resolve) => {
      const socket = new WebSocket(`${origin.replace("http", "ws")}/socket.io/?EIO=4&transport=websocket${query}`);
      socket.onmessage = () => {
        resolve("read");
        socket.close();
      };
      socket.onerror = () => resolve("hidden");
    });
  const eventSource = new Promise((resolve) => {
    const source = new EventSource(`${origin}/events`);
    source.onopen = () => resolve("read");
    source.onerror = () => {
      source.close();
      resolve("hidden");
    };
  });
  navigator.sendBeacon(`${origin}/add_address`, new Blob([body], { type: "text/plain" }));
  navigator.sendBeacon(`${origin}/stop`);
  const polling = "/socket.io/?EIO=4&transport=polling";
  return {
    status: await ask("/status"),
    metrics: await ask("/metrics"),
    withCredentials: await ask("/status", { credentials: "include" }),
    add: await ask("/add_address", json),
    remove: await ask(`/addresses/${address}`, { method: "DELETE" }),
    put: await ask("/consumers/evil", { ...json, method: "PUT", body: "{}" }),
    noCors: await ask("/addresses", { mode: "no-cors" }),
    addNoCors: await ask("/add_address", plain),
    // A type that needs no question first.
    addSimple: await ask("/add_address", { ...plain, mode: "cors" }),
    addUntyped: await ask("/add_address", { method: "POST", body: new Blob([body]), mode: "no-cors" }),
    stop: await ask("/stop", { method: "POST", mode: "no-cors" }),
    image: await element("img", { src: `${origin}/addresses` }),
    script: await element("script", { src: `${origin}/status` }),
    style: await element("link", { rel: "stylesheet", href: `${origin}/status` }),
    frame: await element("iframe", { src: `${origin}/status` }),
    page: await element("iframe", { src: `${origin}/` }),
    webSocket: await webSocket(""),
    webSocket3: await webSocket("&b64=1"),
    eventSource: await eventSource,
    polling: await ask(polling),
    pollingNoCors: await ask(polling, { mode: "no-cors" }),
    post: await ask(`${polling}&sid=x`, plain),
  };
}
