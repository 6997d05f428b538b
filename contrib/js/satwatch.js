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
// What the daemon says about the connection, and not about the chain: no work of a consumer.
const CONTROL = [...NO_PLACE, "subscribed_consumer", "unsubscribed_consumer", "acked", "caught_up"];
// Refusals that pass.
const PASSES = [
    "rate_limited", "too_many_requests", "stopping", "overloaded", "not_ready", "internal", "consumer_changed", "primary_unavailable",
];
const PAUSE = 5000;
// The name of the request for all addresses; a wallet's is the word that it was given as.
const ADDRESSES = "addresses";

/** The daemon refuses; what passes by itself is tried again instead. */
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
 * A name and what to emit for each of them: a wallet by itself, all addresses together.
 * @param {string[]} watched
 */
function requests(watched) {
    const isId = (/** @type {string} */ text) => /^[0-9a-f]{64}$/.test(text);
    // No address is as long as an extended key.
    const isDescriptor = (/** @type {string} */ text) => text.includes("(") || text.length > 100;
    const addresses = watched.filter((text) => !isId(text) && !isDescriptor(text));
    /** @type {[string, string, object][]} */
    const all = watched.filter(isId).map((id) => [id, "subscribe_descriptor", { descriptor_id: id }]);
    for (const descriptor of watched.filter(isDescriptor)) {
        all.push([descriptor, "subscribe_descriptor", { descriptor }]);
    }
    if (addresses.length > 0) all.push([ADDRESSES, "subscribe_addresses", { addresses }]);
    return all;
}

/**
 * The cursor of each request, by its name.
 * @param {string | undefined} file
 * @returns {Map<string, string>}
 */
function readPlaces(file) {
    if (!file || !fs.existsSync(file)) return new Map();
    try {
        return new Map(Object.entries(JSON.parse(fs.readFileSync(file, "utf8"))));
    } catch {
        throw new Error(`${file} is no file of cursors; name another, or move it away to begin anew.`);
    }
}

/**
 * Whole or not at all: a power loss leaves these cursors or those of before.
 * @param {string} file
 * @param {Map<string, string>} places
 */
function writePlaces(file, places) {
    const made = fs.openSync(`${file}.new`, "w");
    fs.writeSync(made, `${JSON.stringify(Object.fromEntries(places))}\n`);
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
    // What is done after a pause, each once; it belongs to the connection.
    /** @type {Map<() => unknown, NodeJS.Timeout>} */
    const timers = new Map();
    const later = (/** @type {() => unknown} */ what, act = what) => {
        if (timers.has(what)) return;
        timers.set(what, setTimeout(() => timers.delete(what) && act(), PAUSE));
    };
    const forget = () => {
        for (const timer of timers.values()) clearTimeout(timer);
        timers.clear();
    };
    const again = () => socket.connect();
    let unreachable = false;
    socket.on("connect", () => (unreachable = false));
    socket.on("connect_error", (/** @type {Error & { data?: { code: string } }} */ error) => {
        const message = `cannot connect to ${url}: ${error.message}`;
        if (!unreachable) note(message);
        unreachable = true;
        // Anything but a refusal by the daemon is tried again by the library.
        if (socket.active) return;
        const code = error.data?.code ?? "refused";
        if (!PASSES.includes(code)) return fail(new Refused({ error: error.message, code }));
        later(again);
    });
    socket.on("disconnect", (reason) => {
        forget();
        // The one reason after which the library does not connect again by itself.
        if (reason === "io server disconnect") later(again);
        if (reason !== "io client disconnect") note(`disconnected: ${reason}`);
    });
    // Asks the daemon, and after a pause again when a refusal passes. `request`: what to ask by
    // then, if anything. `answered`: hears the answer that is no refusal.
    const ask = (
        /** @type {string} */ event,
        /** @type {() => object | undefined} */ request,
        /** @type {(answer: Record<string, any>) => void} */ answered = () => {},
    ) => {
        const asked = request();
        if (!asked) return;
        socket.emit(event, asked, (/** @type {any} */ answer) => {
            const { error, code, message } = answer;
            // A subscription that stands has a message; its error says that its cursor is lost.
            if (!error || message) return answered(answer);
            if (!PASSES.includes(code)) return fail(new Refused({ error, code }));
            note(`${error} Trying again in 5 seconds.`);
            later(request, () => ask(event, request, answered));
        });
    };
    const end = () => {
        socket.close();
        forget();
    };
    return { socket, note, later, ask, end };
}

/** @type {typeof import("./satwatch.js").follow} */
async function* follow(url, watched, options = {}) {
    const { cursorFile, confirmations } = options;
    /** @type {Inbox<import("./satwatch.js").Event & { name?: string }>} */
    const inbox = new Inbox();
    // Where each request goes on after a break: a cursor belongs to what was asked for with it.
    // What the work is done with comes behind what has come.
    const [places, done] = [readPlaces(cursorFile), readPlaces(cursorFile)];
    // Of the wallets, by their ids.
    /** @type {Map<string, string>} */
    const names = new Map();
    const { socket, note, ask, end } = connect(url, options, (cause) => inbox.fail(cause));
    const take = (/** @type {string} */ event, /** @type {any} */ data, /** @type {string | undefined} */ name) => {
        const isPlace = name !== undefined && !NO_PLACE.includes(event) && data.cursor;
        if (isPlace) places.set(name, data.cursor);
        inbox.put({ event, data, name: isPlace ? name : undefined });
    };
    const asked = requests(watched).map(([name, event, request]) => {
        const made = () => ({ ...request, confirmations, after: places.get(name) });
        // The answer comes as an event, too; this one says what it answers.
        const answered = (/** @type {Record<string, any>} */ data) => {
            if (data.error) note(data.error);
            if (data.descriptor_id) names.set(data.descriptor_id, name);
            take("subscribed", data, name);
        };
        return () => ask(event, made, answered);
    });
    // On every connection, the first and those after a break: subscriptions belong to one.
    socket.on("connect", () => asked.forEach((begin) => begin()));
    socket.on("error", ({ error, code }) => {
        // The token has ended. What else is refused is told as the answer to what was asked.
        if (code === "unauthorized") inbox.fail(new Refused({ error, code }));
    });
    socket.onAny((event, data) => {
        if (event === "error" || event === "subscribed") return;
        const isOfAddresses = data.address || data.addresses;
        take(event, data, isOfAddresses ? ADDRESSES : names.get(data.descriptor_id));
    });
    try {
        for (;;) {
            const { event, data, name } = await inbox.take();
            yield { event, data };
            // Who asks for the next event has done its work with this one.
            if (!cursorFile || !name) continue;
            done.set(name, data.cursor);
            writePlaces(cursorFile, done);
        }
    } finally {
        end();
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
    const target = `${url.replace(/\/+$/, "")}/consumers/${encodeURIComponent(name)}`;
    for (;;) {
        const answer = await fetch(target, { method: "PUT", headers, body }).catch(({ message, cause }) => {
            note(`cannot reach ${url}: ${cause?.code ?? message}. Trying again.`);
        });
        if (answer?.ok) return;
        if (answer) {
            // A proxy before the daemon answers otherwise.
            const otherwise = { error: `${url} answers ${answer.status}.`, code: "refused" };
            const refusal = await answer.json().catch(() => otherwise);
            const passes = answer.status >= 500 || PASSES.includes(refusal.code);
            if (!passes) throw new Refused(refusal);
            note(`${refusal.error} Trying again.`);
        }
        const seconds = Number(answer?.headers.get("Retry-After")) || 5;
        await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
    }
}

/** @type {typeof import("./satwatch.js").consume} */
async function* consume(url, consumer, definition, options = {}) {
    await define(url, consumer, definition, options);
    /** @type {Inbox<import("./satwatch.js").Event & { of: number }>} */
    const inbox = new Inbox();
    const { socket, note, later, ask, end } = connect(url, options, (cause) => inbox.fail(cause));
    // Readings are counted. Between two of them nothing is taken and nothing acknowledged: what was
    // not acknowledged comes again.
    let reading = 0;
    let reads = false;
    /** @type {string | undefined} */
    let done;
    const stop = () => {
        reads = false;
        inbox.items.length = 0;
    };
    const begin = () => ask("subscribe_consumer", () => ({ consumer }));
    const place = () => (reads && done ? { consumer, cursor: done } : undefined);
    socket.on("connect", begin);
    socket.on("disconnect", stop);
    socket.on("error", ({ error, code, consumer }) => {
        // `consumer`: its reading has ended. What else is refused is told as the answer to what was
        // asked.
        if (!consumer && code !== "unauthorized") return;
        stop();
        // Somebody else does the work now, nobody shall, or the token has ended.
        if (["consumer_taken", "consumer_gone", "unauthorized"].includes(code)) {
            return inbox.fail(new Refused({ error, code }));
        }
        note(`${error} Trying again in 5 seconds.`);
        later(begin);
    });
    socket.onAny((event, data) => {
        if (event === "subscribed_consumer") {
            reading += 1;
            reads = true;
            done = undefined;
            note(data.error ?? `${data.lag} events to catch up on`);
        }
        // A `subscribed_consumer` with an error says that events are lost.
        const isWork = data.cursor && (!CONTROL.includes(event) || (event === "subscribed_consumer" && data.error));
        if (reads && isWork) inbox.put({ event, data, of: reading });
    });
    try {
        for (;;) {
            const { event, data, of } = await inbox.take();
            yield { event, data };
            if (of !== reading) continue;
            // It says that everything before it is done, too.
            done = data.cursor;
            ask("ack", place);
        }
    } finally {
        end();
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
