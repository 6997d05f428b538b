// Reads satwatch's stream in Redis with the stock client, from now on or from a cursor: calls back with each event, each
// once and in order, also over a restart of Redis. What to do at a gap and when the stream moves is in contrib/docs/bus.md.
//
//     npm install redis
//     node read.mjs redis://127.0.0.1:6379 [satwatch:main] [CURSOR]
import { createClient } from "redis";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";

const numberOf = (cursor) => cursor.slice(cursor.lastIndexOf("-") + 1);

// Whether a cursor is of the log with these starts: [id, first number, last number before it].
function knows(starts, cursor) {
    const number = Number(numberOf(cursor));
    const index = starts.findLastIndex(([, first]) => first <= number);
    const next = starts[index + 1];
    return cursor === `${starts[index]?.[0]}-${number}` && (!next || number <= next[2]);
}

// Asks again until Redis answers.
export async function again(ask) {
    for (;;) {
        try {
            return await ask();
        } catch (error) {
            console.error(`redis: ${error.message}`);
            await sleep(1000);
        }
    }
}

// It cannot go on from its cursor.
export class Unbridged extends Error {}

export async function follow(url, name, cursor, each) {
    const redis = createClient({ url });
    redis.on("error", (error) => console.error(`redis: ${error.message}`));
    await redis.connect();
    try {
        await read(redis, `{${name}}`, cursor, each);
    } finally {
        redis.destroy();
    }
}

async function read(redis, pointer, cursor, each) {
    let n;
    for (;;) {
        const [current, left, from] = await again(() => redis.hmGet(pointer, ["current", "left", "from"]));
        if (!current) {
            await sleep(1000);
            continue;
        }
        if (!cursor) {
            const [last] = await again(() => redis.xRevRange(`${pointer}:${current}`, "+", "-", { COUNT: 1 }));
            const end = last?.message.cursor ?? from;
            cursor = Number(numberOf(end)) > Number(numberOf(from)) ? end : from;
            n = current;
        }
        n ??= left || current;
        const place = { key: `${pointer}:${n}`, id: `${numberOf(cursor)}-0` };
        const wait = n === current ? { BLOCK: 1000 } : {};
        const found = await again(() => redis.xRead(place, { COUNT: 1000, ...wait }));
        // Behind the entries: those that these starts know are of the log that the pointer names by then.
        const [now, starts] = await again(() => redis.hmGet(pointer, ["current", "starts"]));
        if (!now) continue;
        const log = JSON.parse(starts);
        if (!knows(log, cursor))
            throw new Unbridged(`the log is another one now: take balances anew from satwatch, not from ${cursor}`);
        const messages = found?.[0].messages ?? [];
        let fits = true;
        for (const { message } of messages) {
            fits = knows(log, message.cursor ?? "") && message.after === numberOf(cursor);
            if (!fits) break;
            await each(message);
            cursor = message.cursor;
        }
        if (messages.length && fits) continue;
        // The stream that was left is read to its end before the next one.
        if (n === now && !fits)
            throw new Unbridged(`entries were trimmed: get what follows ${cursor} from satwatch (GET /events?after=)`);
        n = now;
    }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
    const [url, name = "satwatch:main", cursor] = process.argv.slice(2);
    if (!url) throw new Error("usage: node read.mjs URL [NAME] [CURSOR]");
    await follow(url, name, cursor, (event) => console.log(JSON.stringify({ ...event, data: JSON.parse(event.data) })));
}
