// socket.io-client as it is: prints what it hears as JSON lines.
//
//   node listen.js URL ADDRESS polling|websocket|upgrade [PACKAGE]
//
// `transport` lines name the transport in use: at the connection, and again after the upgrade.
// PACKAGE: socket.io-client, or socket.io-client-2 for Engine.IO 3.
const [url, address, mode, name = "socket.io-client"] = process.argv.slice(2);
const package = require(name);
const transports = { polling: ["polling"], websocket: ["websocket"], upgrade: ["polling", "websocket"] }[mode];
const print = (event, data) => console.log(JSON.stringify({ event, data }));

const socket = (package.io ?? package)(url, { transports });
socket.on("connect", () => {
    const { engine } = socket.io;
    print("transport", engine.transport.name);
    engine.once("upgrade", () => print("transport", engine.transport.name));
    socket.emit("subscribe_address", { address }, (answer) => print("ack", answer));
});
for (const event of ["connected", "subscribed", "new_transactions", "balance_change", "scan_progress", "scan_complete"]) {
    socket.on(event, (...data) => {
        if (data.length !== 1) throw new Error(`${event} has ${data.length} arguments`);
        print(event, data[0]);
    });
}
socket.on("error", (error) => print("error", error));
socket.on("connect_error", (error) => print("connect_error", error.message));
socket.on("disconnect", (reason) => print("disconnect", reason));
