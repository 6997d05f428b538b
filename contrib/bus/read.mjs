// Reads satwatch's stream in Redis with the stock client, from now on or from a cursor: calls back with each event, each
// once and in order. What to do at a gap and when the stream moves is in contrib/docs/bus.md.
//
//     npm install redis
//     node read.mjs redis://127.0.0.1:6379 [satwatch:main] [CURSOR]
import { createClient } from "redis";
import { fileURLToPath } from "node:url";

const numberOf = (cursor) => (cursor ? cursor.slice(cursor.lastIndexOf("-") + 1) : "0");

// Whether a cursor is of the log with these starts: [id, first number, last number before it].
function knows(starts, cursor) {
    const number = Number(numberOf(cursor));
    const index = starts.findLastIndex(([, first]) => first <= number);
    const next = starts[index + 1];
    return cursor === `${starts[index][0]}-${number}` && (!next || number <= next[2]);
}

export async function follow(url, name, cursor, each) {
    const redis = createClient({ url });
    redis.on("error", (error) => console.error(`redis: ${error.message}`));
    await redis.connect();
    const pointer = `{${name}}`;
    for (;;) {
        const current = await redis.hGet(pointer, "current");
        if (current && !cursor) {
            const [last] = await redis.xRevRange(`${pointer}:${current}`, "+", "-", { COUNT: 1 });
            cursor = last?.message.cursor;
        }
        const from = { key: `${pointer}:${current ?? 0}`, id: `${numberOf(cursor)}-0` };
        const found = await redis.xRead(from, { COUNT: 1000, BLOCK: 1000 });
        // Behind the entries: they are of the log that the pointer names by then.
        const [now, starts] = await redis.hmGet(pointer, ["current", "starts"]);
        if (!now) continue;
        if (cursor && !knows(JSON.parse(starts), cursor))
            throw new Error(`the log is another one now: take balances anew from satwatch, not from ${cursor}`);
        if (now !== current) continue;
        for (const { message } of found?.[0].messages ?? []) {
            if (cursor && message.after !== numberOf(cursor))
                throw new Error(`entries were trimmed: get what follows ${cursor} from satwatch (GET /events?after=)`);
            cursor = message.cursor;
            await each(message);
        }
    }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
    const [url, name = "satwatch:main", cursor] = process.argv.slice(2);
    if (!url) throw new Error("usage: node read.mjs URL [NAME] [CURSOR]");
    await follow(url, name, cursor, (event) => console.log(JSON.stringify({ ...event, data: JSON.parse(event.data) })));
}
