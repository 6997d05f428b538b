// socket.io-client with connection state recovery: subscribes once, and then cuts its own transport
// whenever it hears of a payment, so that much happens while it is away. Prints what it hears as
// JSON lines.
//
//   node recover.js URL ADDRESS polling|websocket|upgrade
const { io } = require("socket.io-client");

const [url, address, mode] = process.argv.slice(2);
const transports = { polling: ["polling"], websocket: ["websocket"], upgrade: ["polling", "websocket"] }[mode];
const print = (event, data) => console.log(JSON.stringify({ event, data }));

const socket = io(url, { transports, auth: { recover: true }, reconnectionDelay: 50, reconnectionDelayMax: 100 });
socket.on("connect", () => {
    print("recovered", socket.recovered);
    if (!socket.recovered) socket.emit("subscribe_address", { address });
});
socket.onAny((event, ...args) => {
    if (args.length !== 2 || typeof args[1] !== "string") throw new Error(`${event} has no offset: ${JSON.stringify(args)}`);
    print(event, args[0]);
});

let cuts = 0;
socket.on("new_transactions", () => setImmediate(cut));

function cut() {
    const { engine } = socket.io;
    if (engine.readyState !== "open") return;
    // Not before the upgrade is over: an event that arrives in the very tick in which the client
    // itself closes a transport that it is upgrading is kept without its offset, and heard twice
    // whatever the server does.
    if (mode === "upgrade" && engine.transport.name !== "websocket") return engine.once("upgrade", () => setImmediate(cut));
    cuts += 1;
    // By turns without a goodbye, where there is a connection to break, and with one.
    if (cuts % 2 === 1 && engine.transport.ws) engine.transport.ws.terminate();
    else engine.close();
}
