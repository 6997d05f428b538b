// Feeds a socket.io cluster of yours: whoever has joined the room of an address (socket.join(address)) gets its events, and
// the room "blocks" those about the chain. The servers need the stock @socket.io/redis-adapter on the same Redis.
//
//     npm install redis @socket.io/redis-emitter
//     node emit.mjs redis://127.0.0.1:6379 [satwatch:main]
import { Emitter } from "@socket.io/redis-emitter";
import { createClient } from "redis";
import { follow } from "./read.mjs";

const [url, name = "satwatch:main"] = process.argv.slice(2);
const redis = createClient({ url });
redis.on("error", (error) => console.error(`redis: ${error.message}`));
await redis.connect();
const emitter = new Emitter(redis);
await follow(url, name, undefined, ({ event, subject, data }) => {
    emitter.to(subject || "blocks").emit(event, JSON.parse(data));
});
