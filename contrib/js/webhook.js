#!/usr/bin/env node
// Receives webhooks of satwatch and prints each event as one JSON line.
//
//   npm install
//   WEBHOOK_SECRET=whsec_... node webhook.js 8080
//
// The secret is in the answer of PUT /consumers/{name} that made it. While a secret is
// changed ("secrets" of PUT) both sign, so a receiver with either goes on.
// POST /consumers/{name}/test sends the event "test", with an id that never comes again. Answer 410
// to get nothing more until POST /consumers/{name}/retry.
const http = require("node:http");
const { webhook } = require("./satwatch.js");

const port = Number(process.argv[2]);
if (!port) {
    console.error("usage: WEBHOOK_SECRET=whsec_... node webhook.js PORT");
    process.exit(2);
}
if (!process.env.WEBHOOK_SECRET) {
    console.error("WEBHOOK_SECRET is not set: it is in the answer of PUT /consumers/{name}.");
    process.exit(2);
}
const verify = webhook(process.env.WEBHOOK_SECRET);
// The same event may come twice, always with the same id. A shop keeps these in its database, in
// the transaction that does the work.
// (A store put back from a copy sends payments again under new ids: book by address+txid, too.)
const done = new Set();
// Of a body, in bytes.
const LARGEST = 1024 * 1024;

const server = http.createServer(async (request, response) => {
    const chunks = [];
    let [size, message] = [0, /** @type {any} */ (undefined)];
    try {
        // Ends with an error also when the peer breaks off.
        for await (const chunk of request) {
            size += chunk.length;
            if (size > LARGEST) throw new Error("the body is too large");
            chunks.push(chunk);
        }
        message = verify(Buffer.concat(chunks).toString(), request.headers);
    } catch (error) {
        response.writeHead(400).end(/** @type {Error} */ (error).message);
        return;
    }
    if (!done.has(message.id)) {
        console.log(JSON.stringify({ event: message.event, data: message.data }));
        done.add(message.id);
    }
    // Only now: what is not answered with 2xx comes again.
    response.writeHead(200).end("thank you");
});
server.listen(port, "127.0.0.1", () => console.error(`listening on port ${port}`));
