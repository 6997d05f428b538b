// socket.io-client as it is, reading a consumer: prints what it hears as JSON lines and
// acknowledges every few events, and when nothing comes for a while.
//
//   node consume.js URL CONSUMER EVERY
const [url, consumer, every] = process.argv.slice(2);
const { io } = require("socket.io-client");
const print = (event, data) => console.log(JSON.stringify({ event, data }));

const socket = io(url);
let count = 0;
let idle;
const ack = (data) => socket.emit("ack", { consumer, cursor: data.cursor });
socket.on("connect", () => socket.emit("subscribe_consumer", { consumer }));
socket.onAny((event, ...data) => {
    if (data.length !== 1) throw new Error(`${event} has ${data.length} arguments`);
    print(event, data[0]);
    if (["connected", "subscribed_consumer", "acked", "error"].includes(event)) return;
    count += 1;
    clearTimeout(idle);
    if (event === "caught_up" || count % Number(every) === 0) ack(data[0]);
    else idle = setTimeout(ack, 300, data[0]);
});
