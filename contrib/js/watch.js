#!/usr/bin/env node
// Prints every event about the given addresses and wallets (descriptors, or their ids) as one JSON
// line, each once and in order, also over breaks of the connection and restarts of the daemon. With
// a file for the cursors (CURSOR_FILE), also over its own end.
//
//   npm install
//   node watch.js http://127.0.0.1:5005 ADDRESS|DESCRIPTOR|ID...
const { follow } = require("./satwatch.js");

async function main() {
    const [url, ...watched] = process.argv.slice(2);
    if (!url || watched.length === 0) {
        console.error("usage: node watch.js URL ADDRESS|DESCRIPTOR|ID...");
        process.exit(2);
    }
    for await (const event of follow(url, watched, { cursorFile: process.env.CURSOR_FILE })) {
        console.log(JSON.stringify(event));
    }
}

main().catch((error) => {
    console.error(error.message);
    process.exit(1);
});
