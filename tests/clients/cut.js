// socket.io-client that cuts its own transport whenever it hears of a payment, so that much happens
// while it is away, and comes back with its cursor. It also asks for connection state recovery,
// which the daemon ignores. Prints what it hears as JSON lines.
//
//   node cut.js URL ADDRESS polling|websocket|upgrade
const { io } = require("socket.io-client");

const [url, address, mode] = process.argv.slice(2);
const transports = { polling: ["polling"], websocket: ["websocket"], upgrade: ["polling", "websocket"] }[mode];
const print = (event, data) => console.log(JSON.stringify({ event, data }));

const socket = io(url, { transports, auth: { recover: true }, reconnectionDelay: 50, reconnectionDelayMax: 100 });
let cursor;
socket.on("connect", () => {
    print("connect", { recovered: Boolean(socket.recovered) });
    socket.emit("subscribe_address", cursor ? { address, after: cursor } : { address });
});
socket.onAny((event, ...args) => {
    if (args.length !== 1) throw new Error(`${event} has ${args.length} arguments: ${JSON.stringify(args)}`);
    print(event, args[0]);
    if (!["connected", "lagged", "error"].includes(event)) cursor = args[0].cursor;
});

let cuts = 0;
socket.on("new_transactions", () => setImmediate(cut));

function cut() {
    const { engine } = socket.io;
    if (engine.readyState !== "open") return;
    cuts += 1;
    // By turns without a goodbye, where there is a connection to break, and with one.
    if (cuts % 2 === 1 && engine.transport.ws) engine.transport.ws.terminate();
    else engine.close();
}
