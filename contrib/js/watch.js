#!/usr/bin/env node
// Prints every event about the given addresses as one JSON line.
//
//   npm install
//   node watch.js http://127.0.0.1:5005 ADDRESS...
const { io } = require("socket.io-client");

const [url, ...addresses] = process.argv.slice(2);
if (!url || addresses.length === 0) {
    console.error("usage: node watch.js URL ADDRESS...");
    process.exit(2);
}

const socket = io(url);

// On every connection, the first and those after a break: subscriptions belong to a connection.
socket.on("connect", () => {
    for (const address of addresses) socket.emit("subscribe_address", { address });
});

socket.onAny((event, data) => console.log(JSON.stringify({ event, data })));
socket.on("connect_error", (error) => console.error(`cannot connect to ${url}: ${error.message}; trying again`));
socket.on("disconnect", (reason) => console.error(`disconnected: ${reason}`));
