// Pages of other origins in a real browser: what each may do with the daemon.
//
//     node origins.mjs URL PORT
//
// Prints {"named": {…}, "other": {…}, "file": {…}} and ends: the pages http://shop.example:PORT,
// http://other.example:PORT and a local file, and of each whether "fetch" with credentials,
// "polling4" and "websocket4" (socket.io-client 4 with credentials) and "client2"
// (socket.io-client 2 as it comes, which sends them by default) got through: true or why not.

import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

import { openChromium } from "./chromium.mjs";

const require = createRequire(import.meta.url);
const [url, port] = process.argv.slice(2);
if (!port) {
  console.error("usage: node origins.mjs URL PORT");
  process.exit(2);
}
const HTML = "<!doctype html><title>a page</title>";
const SCRIPTS = {
  io4: require.resolve("socket.io-client/dist/socket.io.js"),
  io2: require.resolve("socket.io-client-2/dist/socket.io.js"),
};

const folder = mkdtempSync(join(tmpdir(), "satwatch-origins-"));
const file = join(folder, "page.html");
writeFileSync(file, HTML);
const server = createServer((request, response) => response.setHeader("Content-Type", "text/html").end(HTML));
await new Promise((listening) => server.listen(Number(port), "127.0.0.1", listening));
const { context, close } = await openChromium(["--host-resolver-rules=MAP *.example 127.0.0.1"]);
try {
  console.log(
    JSON.stringify({
      named: await attemptsOf(`http://shop.example:${port}/`),
      other: await attemptsOf(`http://other.example:${port}/`),
      file: await attemptsOf(pathToFileURL(file).href),
    }),
  );
} finally {
  await close();
  server.close();
  rmSync(folder, { recursive: true, force: true });
}

async function attemptsOf(place) {
  const page = await context.newPage();
  await page.goto(place);
  for (const [name, path] of Object.entries(SCRIPTS)) {
    await page.addScriptTag({ path });
    await page.evaluate((name) => (window[name] = window.io), name);
  }
  const attempts = await page.evaluate(attempt, url);
  await page.close();
  return attempts;
}

// ---- run in the page

async function attempt(url) {
  const fetched = await fetch(`${url}/status`, { credentials: "include" }).then(
    (answer) => answer.ok || `status ${answer.status}`,
    (error) => String(error),
  );
  const connected = (io, options) =>
    new Promise((resolve) => {
      const socket = io(url, { reconnection: false, forceNew: true, timeout: 20_000, ...options });
      const end = (how) => {
        socket.close();
        resolve(how);
      };
      socket.on("connect", () => end(true));
      socket.on("connect_error", (error) => end(String(error)));
      socket.on("error", (error) => end(String(error)));
    });
  return {
    fetch: fetched,
    polling4: await connected(window.io4, { transports: ["polling"], withCredentials: true }),
    websocket4: await connected(window.io4, { transports: ["websocket"], withCredentials: true }),
    client2: await connected(window.io2, {}),
  };
}
