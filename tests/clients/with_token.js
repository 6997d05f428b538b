// socket.io-client as it is, with a token: prints what becomes of the connection as JSON lines.
//
//   node with_token.js URL TOKEN auth|header polling|websocket [PACKAGE]
//
// PACKAGE: socket.io-client, or socket.io-client-2 for Engine.IO 3, which has no `auth`.
const [url, token, how, transport, name = "socket.io-client"] = process.argv.slice(2);
const package = require(name);
const print = (event, data) => console.log(JSON.stringify({ event, data }));

const extraHeaders = { Authorization: `Bearer ${token}` };
const options = {
    auth: { auth: { token } },
    header: { extraHeaders, transportOptions: { polling: { extraHeaders }, websocket: { extraHeaders } } },
}[how];
const socket = (package.io ?? package)(url, { transports: [transport], ...options });
socket.on("connected", (data) => {
    print("connected", data);
    socket.emit("subscribe_blocks", {}, (answer) => print("ack", answer));
});
socket.on("block", (data) => print("block", data));
// Of a session that ends; Socket.IO 2 has it for a refusal, too, in place of connect_error.
socket.on("error", (data) => print("refused", data));
socket.on("connect_error", (error) => print("refused", error.data));
socket.on("disconnect", (reason) => print("disconnect", reason));
