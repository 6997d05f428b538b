// The web page in a real browser, driven by a test: prints its own URL, takes what to do as JSON
// posted there, and answers with what came of it.
//
//     node page_driver.mjs URL [WIDTH HEIGHT]
//
// {"do": "wait", "at": CSS, "text"?: REGULAR EXPRESSION}   until it can be seen, with such a text: the text
// {"do": "gone", "at": CSS}               until there is none that can be seen
// {"do": "click" | "fill" | "press", "at": CSS, "text"?}
// {"do": "texts", "at": CSS}              of all of them
// {"do": "attribute", "at": CSS, "text": NAME}
// {"do": "run", "text": JAVASCRIPT}       in the page: its value
// {"do": "offline" | "online" | "reload"}
// {"do": "open", "text"?: URL}            another page, or the page anew
// {"do": "size", "width", "height"}
// {"do": "qr", "at": CSS}                 what the QR code in it says
// {"do": "axe"}                           what axe-core finds, in both colour schemes
// {"do": "picture", "text": FILE}
// {"do": "faults"}                        what went wrong until now, which counts no more
// {"do": "end"}                           ends; exit code 0 only if nothing went wrong on the way
//
// A request to another origin, an error in the console (not of a request that fails) and an
// exception in the page are what goes wrong.

import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { createRequire } from "node:module";

import { openChromium } from "./chromium.mjs";

const LIMIT_MS = 20_000;
const [url, width = "1280", height = "800"] = process.argv.slice(2);
if (!url) {
  console.error("usage: node page_driver.mjs URL [WIDTH HEIGHT]");
  process.exit(2);
}
// Packages are found through NODE_PATH, which `import` does not look at.
const require = createRequire(import.meta.url);
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
const jsQr = require("jsqr");
const { origin, host } = new URL(url);
const faults = [];
const { context, close } = await openChromium();
const page = context.pages()[0] ?? (await context.newPage());
page.setDefaultTimeout(LIMIT_MS);
await page.setViewportSize({ width: Number(width), height: Number(height) });
page.on("pageerror", (error) => faults.push(`exception in the page: ${error.stack}`));
page.on("request", (request) => request.url().startsWith(`${origin}/`) || faults.push(`request to elsewhere: ${request.url()}`));
page.on("websocket", (socket) => new URL(socket.url()).host === host || faults.push(`WebSocket to elsewhere: ${socket.url()}`));
const isOfRequest = (text) => /Failed to load resource|WebSocket connection to/.test(text);
page.on("console", (message) => message.type() === "error" && !isOfRequest(message.text()) && faults.push(`console error: ${message.text()}`));
await page.goto(url);

const acts = {
  async wait({ at, text }) {
    const found = page.locator(at).filter({ visible: true, ...(text && { hasText: new RegExp(text) }) }).first();
    await found.waitFor();
    return found.textContent();
  },
  gone: ({ at }) => page.locator(at).filter({ visible: true }).first().waitFor({ state: "hidden" }),
  click: ({ at }) => page.locator(at).filter({ visible: true }).first().click(),
  fill: ({ at, text }) => page.locator(at).fill(text),
  press: ({ at, text }) => page.locator(at).first().press(text),
  texts: ({ at }) => page.locator(at).allTextContents(),
  attribute: ({ at, text }) => page.locator(at).first().getAttribute(text),
  run: ({ text }) => page.evaluate(text),
  offline: () => context.setOffline(true),
  online: () => context.setOffline(false),
  reload: () => page.reload().then(() => null),
  open: ({ text = url }) => page.goto(text).then(() => null),
  async qr({ at }) {
    const image = page.locator(`${at} svg`);
    const side = Number((await image.getAttribute("viewBox")).split(" ")[2]);
    const path = await image.locator("path").last().getAttribute("d");
    const [scale, pixels] = [4, new Uint8ClampedArray((side * 4) ** 2 * 4).fill(255)];
    for (const [, x, y] of path.matchAll(/M(\d+) (\d+)h1/g)) {
      for (let at = 0; at < scale * scale; at++) {
        const pixel = ((y * scale + Math.floor(at / scale)) * side * scale + x * scale + (at % scale)) * 4;
        pixels.fill(0, pixel, pixel + 3);
      }
    }
    return jsQr(pixels, side * scale, side * scale)?.data;
  },
  size: ({ width, height }) => page.setViewportSize({ width, height }),
  picture: ({ text }) => page.screenshot({ path: text }).then(() => null),
  async axe() {
    const found = [];
    for (const colorScheme of ["light", "dark"]) {
      await page.emulateMedia({ colorScheme });
      await page.evaluate(axe);
      const { violations } = await page.evaluate("axe.run({ resultTypes: ['violations'] })");
      found.push(...violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html.slice(0, 150)).join(" | ")}`));
    }
    return found;
  },
  faults: () => faults.splice(0),
  async end() {
    setTimeout(async () => {
      await close();
      for (const fault of faults) console.error(fault);
      process.exit(faults.length === 0 ? 0 : 1);
    });
  },
};

const server = createServer(async (asked, answer) => {
  let text = "";
  for await (const part of asked) text += part;
  const said = { value: null };
  try {
    const what = JSON.parse(text);
    said.value = (await acts[what.do](what)) ?? null;
  } catch (error) {
    said.error = `${text}: ${error}\n${await page.locator("body").innerText().catch(String)}\n${faults.join("\n")}`;
  }
  const body = JSON.stringify(said);
  answer.writeHead(200, { "Content-Type": "application/json", "Content-Length": Buffer.byteLength(body) }).end(body);
});
server.listen(0, "127.0.0.1", () => console.log(`http://127.0.0.1:${server.address().port}`));
