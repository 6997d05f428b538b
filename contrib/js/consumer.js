#!/usr/bin/env node
// The backend of a shop that stores no cursor of its own: the daemon knows what it has done, and
// after any crash goes on from there.
//
//   npm install
//   node consumer.js http://127.0.0.1:5005 shop ADDRESS...
const { io } = require("socket.io-client");

const [url, consumer, ...addresses] = process.argv.slice(2);
if (!url || !consumer || addresses.length === 0) {
    console.error("usage: node consumer.js URL NAME ADDRESS...");
    process.exit(2);
}

const token = process.env.SATWATCH_TOKEN;

// The work. What was not acknowledged comes again after a crash, so doing it twice must do no harm:
// keep the cursor with the result.
function work(event, data) {
    console.log(JSON.stringify({ event, data }));
}

// At every start: a definition that is there already changes nothing.
async function define() {
    const body = JSON.stringify({ addresses });
    const headers = { "Content-Type": "application/json" };
    if (token) headers.Authorization = `Bearer ${token}`;
    const target = new URL(`${url}/consumers/${encodeURIComponent(consumer)}`);
    for (;;) {
        const answer = await fetch(target, { method: "PUT", headers, body }).catch(cannotReach);
        if (answer?.ok) return;
        if (answer) {
            const { error, code } = await answer.json();
            if (code !== "rate_limited") throw new Error(error);
            console.error(`${error} Trying again.`);
        }
        const seconds = Number(answer?.headers.get("Retry-After") ?? 5);
        await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
    }
}

function cannotReach({ message, cause }) {
    console.error(`cannot reach ${url}: ${cause?.code ?? message}. Trying again.`);
}

async function main() {
    await define();
    const socket = io(url, { auth: { token } });
    const subscribe = () => socket.emit("subscribe_consumer", { consumer });
    socket.on("connect", subscribe);
    socket.on("connect_error", (error) => {
        if (socket.active) return cannotReach(error);
        // A refusal by the daemon; anything else is tried again by the library.
        console.error(error.message);
        if (error.data?.code !== "rate_limited") process.exit(1);
        setTimeout(() => socket.connect(), 5000);
    });
    // An acknowledgement says that everything before it is done, too: if the work is asynchronous,
    // await each before the next.
    for (const event of ["new_transactions", "balance_change", "transaction_update", "scan_complete", "unwatched", "label_change"]) {
        socket.on(event, (data) => {
            work(event, data);
            socket.emit("ack", { consumer, cursor: data.cursor });
        });
    }
    // The one reason after which the library does not connect again by itself.
    socket.on("disconnect", (reason) => reason === "io server disconnect" && socket.connect());
    socket.on("subscribed_consumer", ({ lag, error }) => console.error(error ?? `${lag} events to catch up on`));
    let again;
    socket.on("error", ({ error, code }) => {
        console.error(error);
        // Somebody else does the work now, nobody shall, or the token has ended.
        if (["consumer_taken", "consumer_gone", "unauthorized"].includes(code)) process.exit(1);
        if (["consumer_changed", "cursor_expired"].includes(code)) return subscribe();
        // Once for all of them: each acknowledgement may be refused.
        if (again === socket.id) return;
        console.error("Trying again in 5 seconds.");
        // A connection that is made meanwhile subscribes by itself.
        const id = (again = socket.id);
        setTimeout(() => {
            if (again === id) again = undefined;
            if (socket.id === id) subscribe();
        }, 5000);
    });
}

main().catch((error) => {
    console.error(error.message);
    process.exit(1);
});
