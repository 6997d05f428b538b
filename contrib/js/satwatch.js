// What a program in JavaScript needs of satwatch: events, each once and in order (`follow`), work
// that is acknowledged (`consume`), and webhooks that are satwatch's (`webhook`).
//
//   const { follow } = require("./satwatch.js");          // or: import { follow } from "./satwatch.js";
//   for await (const { event, data } of follow("http://127.0.0.1:5005", [address], { cursorFile: "cursor" })) { ... }
//
// Types are in satwatch.d.ts.
"use strict";

const fs = require("node:fs");
const { io } = require("socket.io-client");

// These carry a cursor that is no place to come back to: events before it may not have come yet.
const NO_PLACE = ["connected", "lagged", "error"];
// What a consumer works on.
const WORK = ["new_transactions", "balance_change", "transaction_update", "scan_complete", "unwatched", "label_change"];
const PAUSE = 5000;

/** The daemon refuses, and trying again does not help. */
class Refused extends Error {
    /** @param {{ error: string, code: string }} refusal */
    constructor({ error, code }) {
        super(error);
        this.code = code;
    }
}

/**
 * What has come and was not taken yet.
 * @template T
 */
class Inbox {
    constructor() {
        /** @type {T[]} */
        this.items = [];
        /** @type {unknown} */
        this.failure = undefined;
        this.wake = () => {};
    }

    /** @param {T} item */
    put(item) {
        this.items.push(item);
        this.wake();
    }

    /** @param {unknown} cause */
    fail(cause) {
        this.failure = cause;
        this.wake();
    }

    /** @returns {Promise<T>} */
    async take() {
        for (;;) {
            const item = this.items.shift();
            if (item !== undefined) return item;
            if (this.failure) throw this.failure;
            await new Promise((wake) => (this.wake = () => wake(undefined)));
        }
    }
}

/**
 * What to emit for each of them: a wallet by itself, all addresses together.
 * @param {string[]} watched
 */
function requests(watched) {
    const isId = (/** @type {string} */ text) => /^[0-9a-f]{64}$/.test(text);
    // No address is as long as an extended key.
    const isDescriptor = (/** @type {string} */ text) => text.includes("(") || text.length > 100;
    const addresses = watched.filter((text) => !isId(text) && !isDescriptor(text));
    /** @type {[string, object][]} */
    const all = watched.filter(isId).map((id) => ["subscribe_descriptor", { descriptor_id: id }]);
    for (const descriptor of watched.filter(isDescriptor)) {
        all.push(["subscribe_descriptor", { descriptor }]);
    }
    if (addresses.length > 0) all.push(["subscribe_addresses", { addresses }]);
    return all;
}

/** @param {string | undefined} file */
function readCursor(file) {
    if (!file || !fs.existsSync(file)) return undefined;
    return fs.readFileSync(file, "utf8").trim() || undefined;
}

/**
 * Whole or not at all: a power loss leaves the cursor of before.
 * @param {string} file
 * @param {string} cursor
 */
function writeCursor(file, cursor) {
    const made = fs.openSync(`${file}.new`, "w");
    fs.writeSync(made, `${cursor}\n`);
    fs.fsyncSync(made);
    fs.closeSync(made);
    fs.renameSync(`${file}.new`, file);
}

/**
 * A connection that comes back, whatever ends it, until the daemon refuses it.
 * @param {string} url
 * @param {import("./satwatch.js").Options} options
 * @param {(cause: unknown) => void} fail
 */
function connect(url, options, fail) {
    const { token = process.env.SATWATCH_TOKEN, note = console.error } = options;
    const socket = io(url, { auth: { token } });
    let unreachable = false;
    socket.on("connect", () => (unreachable = false));
    socket.on("connect_error", (/** @type {Error & { data?: { code: string } }} */ error) => {
        const message = `cannot connect to ${url}: ${error.message}`;
        if (!unreachable) note(message);
        unreachable = true;
        // Anything but a refusal by the daemon is tried again by the library.
        if (socket.active) return;
        const code = error.data?.code ?? "refused";
        if (code !== "rate_limited") return fail(new Refused({ error: error.message, code }));
        setTimeout(() => socket.connect(), PAUSE);
    });
    socket.on("disconnect", (reason) => {
        // The one reason after which the library does not connect again by itself.
        if (reason === "io server disconnect") socket.connect();
        if (reason !== "io client disconnect") note(`disconnected: ${reason}`);
    });
    // Once for a connection, although each request may be refused. One that is made meanwhile
    // begins by itself.
    /** @type {string | undefined} */
    let again;
    const later = (/** @type {() => void} */ begin) => {
        if (again === socket.id) return;
        const id = (again = socket.id);
        note("Trying again in 5 seconds.");
        setTimeout(() => {
            if (again === id) again = undefined;
            if (socket.id === id) begin();
        }, PAUSE);
    };
    return { socket, note, later };
}

/** @type {typeof import("./satwatch.js").follow} */
async function* follow(url, watched, options = {}) {
    const { cursorFile } = options;
    /** @type {Inbox<import("./satwatch.js").Event & { place?: string }>} */
    const inbox = new Inbox();
    const asked = requests(watched);
    // Where to go on after a break: the cursor of the last event, `subscribed` or `caught_up`.
    let cursor = readCursor(cursorFile);
    // A cursor belongs to what was asked for with it. On a new connection it is overwritten only
    // when every `subscribed` that is waited for has come: one for all addresses, and one for each
    // wallet.
    let waiting = asked.length;
    const { socket, note, later } = connect(url, options, (cause) => inbox.fail(cause));
    const subscribe = () => {
        waiting = asked.length;
        for (const [event, request] of asked) {
            socket.emit(event, cursor ? { ...request, after: cursor } : request);
        }
    };
    // On every connection, the first and those after a break: subscriptions belong to one.
    socket.on("connect", subscribe);
    socket.on("error", ({ error, code }) => {
        if (["cursor_unknown", "cursor_expired"].includes(code)) {
            // `subscribed` comes next, with the balances as they are and a cursor to go on from. A
            // shop compares them, or GET /transactions, with its books.
            note(`events after ${cursor} cannot be told any more: ${error}`);
        } else if (code === "rate_limited" || (cursor && !["unauthorized", "forbidden"].includes(code))) {
            // What was right before is right still; it may pass.
            note(error);
            later(subscribe);
        } else {
            inbox.fail(new Refused({ error, code }));
        }
    });
    socket.onAny((event, data) => {
        if (event === "subscribed") waiting -= 1;
        const isPlace = waiting === 0 && !NO_PLACE.includes(event) && data.cursor;
        if (isPlace) cursor = data.cursor;
        if (event !== "error") inbox.put({ event, data, place: isPlace ? data.cursor : undefined });
    });
    try {
        for (;;) {
            const { event, data, place } = await inbox.take();
            yield { event, data };
            // Who asks for the next event has done its work with this one.
            if (cursorFile && place) writeCursor(cursorFile, place);
        }
    } finally {
        socket.close();
    }
}

/**
 * At every start: a definition that is there already changes nothing.
 * @param {string} url
 * @param {string} name
 * @param {import("./satwatch.js").Definition} definition
 * @param {import("./satwatch.js").Options} options
 */
async function define(url, name, definition, { token = process.env.SATWATCH_TOKEN, note = console.error }) {
    /** @type {Record<string, string>} */
    const headers = { "Content-Type": "application/json" };
    if (token) headers.Authorization = `Bearer ${token}`;
    const body = JSON.stringify(definition);
    const target = new URL(`${url}/consumers/${encodeURIComponent(name)}`);
    for (;;) {
        const answer = await fetch(target, { method: "PUT", headers, body }).catch(({ message, cause }) => {
            note(`cannot reach ${url}: ${cause?.code ?? message}. Trying again.`);
        });
        if (answer?.ok) return;
        if (answer) {
            const refusal = await answer.json();
            if (refusal.code !== "rate_limited") throw new Refused(refusal);
            note(`${refusal.error} Trying again.`);
        }
        const seconds = Number(answer?.headers.get("Retry-After") ?? 5);
        await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
    }
}

/** @type {typeof import("./satwatch.js").consume} */
async function* consume(url, consumer, definition, options = {}) {
    await define(url, consumer, definition, options);
    /** @type {Inbox<import("./satwatch.js").Event>} */
    const inbox = new Inbox();
    const { socket, note, later } = connect(url, options, (cause) => inbox.fail(cause));
    const subscribe = () => {
        // What was not acknowledged comes again.
        inbox.items.length = 0;
        socket.emit("subscribe_consumer", { consumer });
    };
    socket.on("connect", subscribe);
    for (const event of WORK) socket.on(event, (data) => inbox.put({ event, data }));
    socket.on("subscribed_consumer", ({ lag, error }) => note(error ?? `${lag} events to catch up on`));
    socket.on("error", ({ error, code }) => {
        // Somebody else does the work now, nobody shall, or the token has ended.
        if (["consumer_taken", "consumer_gone", "unauthorized"].includes(code)) {
            inbox.items.length = 0;
            return inbox.fail(new Refused({ error, code }));
        }
        note(error);
        if (["consumer_changed", "cursor_expired"].includes(code)) return subscribe();
        later(subscribe);
    });
    try {
        for (;;) {
            const { event, data } = await inbox.take();
            yield { event, data };
            // It says that everything before it is done, too.
            if (socket.connected) socket.emit("ack", { consumer, cursor: data.cursor });
        }
    } finally {
        socket.close();
    }
}

/** @type {typeof import("./satwatch.js").webhook} */
function webhook(secret) {
    const { Webhook } = require("standardwebhooks");
    const verifier = new Webhook(secret);
    return (body, headers) => {
        const names = ["webhook-id", "webhook-timestamp", "webhook-signature"];
        const needed = Object.fromEntries(names.map((name) => [name, String(headers[name] ?? "")]));
        const { event, data } = /** @type {any} */ (verifier.verify(body, needed));
        return { id: needed["webhook-id"], event, data };
    };
}

module.exports = { follow, consume, webhook, Refused };
