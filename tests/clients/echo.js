// A stock JavaScript client against the library's echo server, once per connection: events,
// acknowledgements and attachments both ways. What it hears comes as JSON lines, bytes as
// {"base64": …}.
//
//   node echo.js PACKAGE URL polling|websocket|upgrade
//
// PACKAGE is socket.io-client or, for Engine.IO 3, socket.io-client-2.
const [name, url, mode] = process.argv.slice(2);
const package = require(name);
const transports = { polling: ["polling"], websocket: ["websocket"], upgrade: ["polling", "websocket"] }[mode];
const print = (event, data) => console.log(JSON.stringify({ event, data: shown(data) }));

function shown(value) {
    if (Buffer.isBuffer(value) || value instanceof ArrayBuffer) return { base64: Buffer.from(value).toString("base64") };
    if (Array.isArray(value)) return value.map(shown);
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, shown(inner)]));
}

const socket = (package.io ?? package)(url, { transports, reconnectionDelay: 50, reconnectionDelayMax: 200, randomizationFactor: 0 });
let round = 0;
socket.on("connect", () => {
    round += 1;
    const { engine } = socket.io;
    print("transport", engine.transport.name);
    engine.once("upgrade", () => print("transport", engine.transport.name));
    const bytes = { first: Buffer.from([0, 1, 0x1e, 255]), list: [Buffer.alloc(0), "é€😀", Buffer.alloc(300, "x")] };
    socket.emit("echo", round, bytes, null);
    socket.emit("ack", round, bytes, (...args) => print("ack", args));
    socket.emit("ack", round, (...args) => print("ack", args));
});
socket.on("echo", (...args) => print("echo", args));
socket.on("connect_error", (error) => print("connect_error", String(error)));
socket.on("disconnect", (reason) => print("disconnect", reason));
