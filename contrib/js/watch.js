#!/usr/bin/env node
// Prints every event about the given addresses and wallets (descriptors, or their ids) as one JSON
// line, each once and in order, also over breaks of the connection and restarts of the daemon.
//
//   npm install
//   node watch.js http://127.0.0.1:5005 ADDRESS|DESCRIPTOR|ID...
const { io } = require("socket.io-client");

const [url, ...watched] = process.argv.slice(2);
if (!url || watched.length === 0) {
    console.error("usage: node watch.js URL ADDRESS|DESCRIPTOR|ID...");
    process.exit(2);
}
const isId = (text) => /^[0-9a-f]{64}$/.test(text);
// No address is as long as an extended key.
const isDescriptor = (text) => text.includes("(") || text.length > 100;
const addresses = watched.filter((text) => !isId(text) && !isDescriptor(text));
const requests = watched.filter(isId).map((id) => ["subscribe_descriptor", { descriptor_id: id }]);
for (const descriptor of watched.filter(isDescriptor)) {
    requests.push(["subscribe_descriptor", { descriptor }]);
}
if (addresses.length > 0) requests.push(["subscribe_addresses", { addresses }]);

// Where to go on after a break: the cursor of the last event, `subscribed` or `caught_up`. A
// program that must survive its own end, too, keeps it in its database, in the transaction that
// does the work.
let cursor;
// A cursor belongs to what was asked for with it. On a new connection it is overwritten only when
// every `subscribed` that is waited for has come: one for all addresses, and one for each wallet.
let waiting = requests.length;
// These carry a cursor that is no place to come back to: events before it may not have come yet.
const NO_PLACE = ["connected", "lagged", "error"];

const socket = io(url, { auth: { token: process.env.SATWATCH_TOKEN } });

function subscribe() {
    waiting = requests.length;
    for (const [event, request] of requests) {
        socket.emit(event, cursor ? { ...request, after: cursor } : request);
    }
}

// On every connection, the first and those after a break: subscriptions belong to a connection.
socket.on("connect", subscribe);

socket.onAny((event, data) => {
    console.log(JSON.stringify({ event, data }));
    if (event === "error") return refused(data);
    if (event === "subscribed") waiting -= 1;
    if (waiting === 0 && !NO_PLACE.includes(event) && data.cursor) cursor = data.cursor;
});

function refused({ error, code }) {
    if (["cursor_unknown", "cursor_expired"].includes(code)) {
        // `subscribed` comes next, with the balances as they are and a cursor to go on from. A shop
        // compares them, or GET /transactions, with its books.
        console.error(`events after ${cursor} cannot be told any more: ${error}`);
    } else if (code === "rate_limited" || (cursor && code !== "unauthorized")) {
        // What was right before is right still; it may pass.
        console.error(`${error} Trying again in 5 seconds.`);
        // A connection that is made meanwhile subscribes by itself.
        const { id } = socket;
        setTimeout(() => socket.id === id && subscribe(), 5000);
    } else {
        console.error(error);
        process.exit(1);
    }
}

socket.on("connect_error", (error) => {
    console.error(`cannot connect to ${url}: ${error.message}`);
    // Anything but a refusal by the daemon is tried again by the library.
    if (socket.active) return;
    if (error.data?.code !== "rate_limited") process.exit(1);
    setTimeout(() => socket.connect(), 5000);
});
socket.on("disconnect", (reason) => {
    console.error(`disconnected: ${reason}`);
    // The one reason after which the library does not connect again by itself.
    if (reason === "io server disconnect") socket.connect();
});
