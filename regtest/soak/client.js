// A client of the soak, on the stock socket.io-client: writes all that it hears to a file, and
// comes back with the cursors in there.
//
//   node client.js JOB       (JSON: see clients.py, which checks the file)
//
// SIGUSR2 cuts its connection, by turns without and with a goodbye.
const fs = require("fs");
const { io } = require("socket.io-client");

const job = JSON.parse(fs.readFileSync(process.argv[2], "utf8"));
const CONTROL = new Set([
    "connected", "subscribed", "subscribed_blocks", "unsubscribed", "caught_up", "lagged", "error",
    "subscribed_consumer", "unsubscribed_consumer", "acked",
]);

// --- the file: each record is one line, there as soon as it is written; a kill may leave half a
// line, which is taken away

const cursors = new Map(); // group -> up to there it has everything
const live = new Set(); // groups that are subscribed on this connection
const groupOf = new Map(); // address or wallet -> group
const subjectOf = (data) => data.address ?? data.descriptor_id;
for (const group of job.groups) for (const address of group.addresses) groupOf.set(address, group.name);

function take(record) {
    if (record.r === "subscribed" || (record.r === "caught_up" && record.group)) cursors.set(record.group, record.cursor);
    if (record.r === "event") cursors.set(record.group, record.cursor);
}

if (fs.existsSync(job.out)) {
    const text = fs.readFileSync(job.out);
    const whole = text.lastIndexOf(10) + 1;
    fs.truncateSync(job.out, whole);
    for (const line of text.subarray(0, whole).toString().split("\n").filter(Boolean)) take(JSON.parse(line));
}
const file = fs.openSync(job.out, "a");

function write(record) {
    take(record);
    const text = Buffer.from(JSON.stringify(record) + "\n");
    for (let done = 0; done < text.length; ) done += fs.writeSync(file, text, done);
}

// --- the connection

const socket = io(job.url, {
    transports: job.transports,
    reconnectionDelay: 100,
    reconnectionDelayMax: 300,
    timeout: 5000,
});

let cuts = 0;
process.on("SIGUSR2", () => {
    const { engine } = socket.io;
    if (!engine || engine.readyState !== "open") return;
    cuts += 1;
    if (cuts % 2 === 1 && engine.transport.ws) engine.transport.ws.terminate();
    else engine.close();
});
// Only who is known to listen to that is cut.
write({ r: "start" });

// The text of each event as it came, by its name and cursor: the client itself hands out only what
// it parsed.
const raws = new Map();
// Subscriptions that were asked for and not answered, in their order, by group.
const asked = new Map();

socket.io.on("open", () => {
    raws.clear();
    socket.io.engine.on("packet", ({ type, data }) => {
        if (type !== "message" || typeof data !== "string" || !data.startsWith("2[")) return;
        const cursor = /"cursor":"([^"]+)"/.exec(data);
        if (cursor) raws.set(`${data.slice(3, data.indexOf('"', 3))} ${cursor[1]}`, data.slice(data.indexOf(",") + 1, -1));
    });
});

function subscribe(group, after) {
    if (!asked.has(group.name)) asked.set(group.name, []);
    asked.get(group.name).push(after === undefined);
    const options = after === undefined ? {} : { after };
    if (group.descriptor) socket.emit("subscribe_descriptor", { descriptor_id: group.addresses[0], ...options });
    else if (!group.many) socket.emit("subscribe_address", { address: group.addresses[0], ...options });
    else {
        socket.emit("subscribe_addresses", { addresses: group.addresses, ...options }, (answer) => {
            if (JSON.stringify(answer) !== JSON.stringify(group.answer)) write({ r: "bug", text: "the acknowledgement is not the answer" });
        });
    }
}

socket.on("connect", () => {
    write({ r: "connect" });
    asked.clear();
    live.clear();
    if (job.consumer) socket.emit("subscribe_consumer", { consumer: job.consumer.name });
    for (const group of job.groups) if (!job.random || cursors.has(group.name)) subscribe(group, cursors.get(group.name));
    if (job.blocks) socket.emit("subscribe_blocks", {});
});
socket.on("disconnect", (reason) => write({ r: "disconnect", reason }));

const replies = {
    connected: () => {},
    subscribed(data) {
        const name = groupOf.get(subjectOf(data) ?? data.addresses[0]);
        const group = job.groups.find((group) => group.name === name);
        group.answer = data;
        const fresh = asked.get(name).shift();
        const balances = (data.balances ?? (data.balance ? [data.balance] : [])).map((it) => [subjectOf(it), it.balance, it.cursor]);
        write({ r: "subscribed", group: name, cursor: data.cursor, fresh, balances, code: data.code });
        live.add(name);
    },
    subscribed_blocks: (data) => write({ r: "subscribed", group: "blocks", cursor: data.cursor, fresh: true, balances: [] }),
    unsubscribed(data) {
        live.delete(groupOf.get(data.address));
        write({ r: "unsubscribed", group: groupOf.get(data.address) });
    },
    caught_up(data) {
        const first = subjectOf(data) ?? (data.addresses ?? [])[0];
        write({ r: "caught_up", group: first ? groupOf.get(first) : null, consumer: data.consumer, cursor: data.cursor });
    },
    lagged: (data) => write({ r: "lagged", cursor: data.cursor }),
    error: (data) => write({ r: "error", ...data }),
    subscribed_consumer: (data) => write({ r: "reading", cursor: data.cursor, code: data.code }),
    unsubscribed_consumer: () => write({ r: "unread" }),
    acked: () => {},
};

let unacked = 0;

socket.onAny((name, data, ...more) => {
    // Not in the log.
    if (name === "scan_progress") return;
    if (more.length > 0) write({ r: "bug", text: `${name} has ${more.length} more arguments: ${JSON.stringify(more)}` });
    if (CONTROL.has(name)) return replies[name](data);
    const raw = raws.get(`${name} ${data.cursor}`);
    raws.delete(`${name} ${data.cursor}`);
    if (raw === undefined) write({ r: "bug", text: `${name} ${data.cursor} came twice in one connection` });
    write({ r: "event", group: subjectOf(data) ? groupOf.get(subjectOf(data)) : "blocks", name, cursor: data.cursor, raw });
    if (job.consumer && ++unacked >= job.consumer.every) {
        unacked = 0;
        acknowledge(data.cursor);
    }
});

function acknowledge(cursor) {
    write({ r: "ack", cursor });
    socket.emit("ack", { consumer: job.consumer.name, cursor }, (answer) => write({ r: "acked", asked: cursor, ...answer }));
}

// --- what it does by itself

// Every sequence of its own: a small generator, the same for the same seed.
let state = job.random ? job.random.seed >>> 0 : 0;
function random(below) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
}

function change() {
    setTimeout(change, 20 + random(400));
    if (!socket.connected) return;
    const group = job.groups[random(job.groups.length)];
    const isAsked = (asked.get(group.name) ?? []).length > 0;
    if (live.has(group.name) && random(2)) socket.emit("unsubscribe_address", { address: group.addresses[0] });
    // With a cursor only when nothing is on its way: what comes meanwhile would come again after
    // it, as asked.
    else subscribe(group, random(2) || isAsked || live.has(group.name) ? undefined : cursors.get(group.name));
}
if (job.random) change();
