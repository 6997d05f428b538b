// Feeds a socket.io cluster of yours: whoever has joined the room of an address (socket.join(address)) gets its events, and
// the room "blocks" those about the chain. The servers need the stock @socket.io/redis-adapter on the same Redis.
// Its place is kept in Redis, behind what was published: each event is emitted at least once. Run one of it.
//
//     npm install redis @socket.io/redis-emitter
//     node emit.mjs redis://127.0.0.1:6379 [satwatch:main]
import { Emitter } from "@socket.io/redis-emitter";
import { createClient } from "redis";
import { Unbridged, again, follow } from "./read.mjs";

const [url, name = "satwatch:main"] = process.argv.slice(2);
const redis = createClient({ url });
redis.on("error", (error) => console.error(`redis: ${error.message}`));
await redis.connect();
// The emitter itself does not wait for what it publishes.
let published;
const emitter = new Emitter({ publish: (channel, message) => (published = redis.publish(channel, message)) });
const place = `{${name}}:emitted`;
let from = await again(() => redis.get(place));
for (;;) {
    try {
        await follow(url, name, from, async ({ event, subject, data, cursor }) => {
            await again(async () => {
                emitter.to(subject || "blocks").emit(event, JSON.parse(data));
                await published;
                await redis.set(place, cursor);
            });
        });
    } catch (error) {
        if (!(error instanceof Unbridged)) throw error;
        console.error(`${error.message}; it goes on from now on`);
        from = undefined;
    }
}
