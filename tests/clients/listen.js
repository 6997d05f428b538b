// socket.io-client as it is: prints what it hears as JSON lines.
//
//   node listen.js URL ADDRESS polling|websocket|upgrade
//
// `transport` lines name the transport in use: at the connection, and again after the upgrade.
const { io } = require("socket.io-client");

const [url, address, mode] = process.argv.slice(2);
const transports = { polling: ["polling"], websocket: ["websocket"], upgrade: ["polling", "websocket"] }[mode];
const print = (event, data) => console.log(JSON.stringify({ event, data }));

const socket = io(url, { transports });
socket.on("connect", () => {
    const { engine } = socket.io;
    print("transport", engine.transport.name);
    engine.once("upgrade", () => print("transport", engine.transport.name));
    socket.emit("subscribe_address", { address }, (answer) => print("ack", answer));
});
socket.onAny((event, ...data) => {
    if (data.length !== 1) throw new Error(`${event} has ${data.length} arguments`);
    print(event, data[0]);
});
socket.on("connect_error", (error) => print("connect_error", error.message));
socket.on("disconnect", (reason) => print("disconnect", reason));
