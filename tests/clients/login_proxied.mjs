// Two daemons behind one host, each in a folder, in a real browser: a proxy that asks them
// under their own names, so that the page's origin is one that their settings list.
//
//     node login_proxied.mjs PORT HOST TOKEN HOST TOKEN
//
// Logs in at http://shop.example:PORT/a/ and /b/, looks whether both stay logged in, and logs out of the second. Prints
// {"who": [of a, of b], "keys": names in the storage}; exit code 0 only if all went well.

import { createServer, request } from "node:http";

import { openChromium } from "./chromium.mjs";

const [port, ...rest] = process.argv.slice(2);
const daemons = { a: { host: rest[0], token: rest[1] }, b: { host: rest[2], token: rest[3] } };
if (!daemons.b.token) {
  console.error("usage: node login_proxied.mjs PORT HOST TOKEN HOST TOKEN");
  process.exit(2);
}

const proxy = createServer((asked, answer) => {
  const [, folder, path] = /^\/([ab])(\/.*)$/.exec(asked.url) ?? [];
  if (!folder) return answer.writeHead(404).end();
  const { host } = daemons[folder];
  const [hostname, port] = host.split(":");
  const { upgrade, connection, ...headers } = asked.headers;
  const passed = request({ hostname, port, path, method: asked.method, headers: { ...headers, host } }, (got) => {
    answer.writeHead(got.statusCode, got.headers);
    got.pipe(answer);
  });
  passed.on("error", () => answer.destroy());
  asked.pipe(passed);
});
await new Promise((listening) => proxy.listen(Number(port), "127.0.0.1", listening));

const { context, close } = await openChromium(["--host-resolver-rules=MAP shop.example 127.0.0.1"]);
let failed;
try {
  const [a, b] = [await logIn("a"), await logIn("b")];
  const who = [];
  for (const page of [a, b]) {
    await page.reload();
    await connected(page);
    who.push(await page.locator("#who-text").textContent());
  }
  const keys = await a.evaluate(() => Object.keys(localStorage).filter((name) => name.includes("page_key")));
  await b.getByRole("button", { name: "Log out" }).click();
  await b.getByLabel("Token").waitFor();
  await a.reload();
  await connected(a);
  console.log(JSON.stringify({ who, keys: keys.sort() }));
} catch (error) {
  failed = error;
} finally {
  await close();
  proxy.close();
}
if (failed) console.error(failed.stack);
process.exit(failed ? 1 : 0);

async function connected(page) {
  await page.locator('body[data-connection="connected"]:not([data-login])').waitFor();
  await page.locator("#who").waitFor();
}

async function logIn(folder) {
  const page = await context.newPage();
  page.setDefaultTimeout(60_000);
  await page.goto(`http://shop.example:${port}/${folder}/`);
  await page.getByLabel("Token").fill(daemons[folder].token);
  await page.getByRole("button", { name: "Log in" }).click();
  await connected(page);
  return page;
}
