// A small Socket.IO 5 client on Engine.IO 4: WebSocket, or polling where none gets through; namespace "/", text packets.
//
// Engine.IO packets are one digit and data: 0 open, 1 close, 2 ping, 3 pong, 4 message, 6 noop. The server pings.
// A message holds a Socket.IO packet: 0 connect, 1 disconnect, 2 event, 3 acknowledgement, 4 refused; then, for events
// and acknowledgements, an optional number and a JSON array.
//
// The connection comes back by itself, later and later, and never buffers: whoever subscribes does it again at each
// "connected". Every emit with a reply gets exactly one, an {error, code} at worst.

import { Polling } from "./polling.js";

const CONNECT_MS = 10_000;
const REPLY_MS = 15_000;
const STEADY_MS = 5_000;
const RETRY_MS = { first: 500, most: 10_000 };

export class Socket {
  #place;
  #payload;
  #onState;
  #handlers = new Map();
  #replies = new Map();
  #number = 0;
  #attempt = 0;
  #since = 0;
  #silence = 0;
  #link = null;
  #fallback = null; // What to do when nothing at all comes over the link.
  #instead = null; // What to do when something comes.
  #watchdog = null;
  #retry = null;

  /// `place` is the URL of Socket.IO. `payload()` gives what is sent to connect, `undefined` for nothing. `onState(state,
  /// words)` hears "connecting", "connected", "waiting" (for the next attempt) and "unauthorized" (there is none
  /// until `connect` is called), with what there is to say about it.
  constructor(place, payload, onState) {
    this.#place = place;
    this.#payload = payload;
    this.#onState = onState;
  }

  on(name, handler) {
    this.#handlers.set(name, handler);
  }

  /// Sends an event. `reply`, if given, is called once with what the server answered.
  emit(name, data, reply) {
    if (!this.#since) {
      reply?.({ error: "Not connected.", code: "disconnected" });
      return;
    }
    let number = "";
    if (reply) {
      number = this.#number++;
      const late = () => this.#answer(number, { error: "satwatch did not answer.", code: "timeout" });
      this.#replies.set(number, { reply, timer: setTimeout(late, REPLY_MS) });
    }
    this.#link.send(`42${number}${JSON.stringify([name, data])}`);
  }

  /// Ends the connection, and connects no more until it is told to. No state is told of that.
  close() {
    clearTimeout(this.#retry);
    if (this.#link) this.#end("The connection was closed.");
  }

  /// Connects, or stops waiting and tries now. Does nothing while a connection is up or under way.
  connect() {
    if (this.#link) return;
    clearTimeout(this.#retry);
    this.#onState("connecting");
    // The first WebSocket may have come before the server was up. Only when polling gets an answer and a second one gets
    // none, WebSockets do not get through.
    const webSocket = (fallback) => this.#use(new WebSocket(this.#address("websocket")), { fallback });
    const polling = (instead) => this.#use(new Polling(this.#address("polling")), { instead });
    webSocket(() => polling(() => webSocket(() => polling())));
  }

  #address(transport) {
    const url = new URL(`?EIO=4&transport=${transport}`, this.#place);
    if (transport === "websocket") url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    return url;
  }

  #use(link, { fallback, instead }) {
    this.#link = link;
    this.#fallback = fallback;
    this.#instead = instead;
    link.onmessage = ({ data }) => {
      if (link !== this.#link) return;
      this.#fallback = null;
      if (!this.#instead) return this.#receive(data);
      this.#drop();
      this.#instead();
    };
    link.onclose = ({ words }) => link === this.#link && this.#fail(words ?? "The connection was lost.");
    this.#expect(CONNECT_MS, "satwatch does not answer.");
  }

  #drop() {
    const link = this.#link;
    this.#link = null;
    clearTimeout(this.#watchdog);
    link.close();
  }

  /// The one way out of a connection, whatever ended it.
  #end(reason) {
    this.#drop();
    if (this.#since && Date.now() - this.#since > STEADY_MS) this.#attempt = 0;
    this.#since = 0;
    for (const number of [...this.#replies.keys()]) this.#answer(number, { error: reason, code: "disconnected" });
  }

  #fail(reason) {
    if (this.#fallback) {
      this.#drop();
      return this.#fallback();
    }
    this.#end(reason);
    const longest = Math.min(RETRY_MS.most, RETRY_MS.first * 2 ** this.#attempt++);
    this.#retry = setTimeout(() => this.connect(), longest * (0.5 + Math.random() / 2));
    this.#onState("waiting", reason);
  }

  #expect(milliseconds, otherwise) {
    clearTimeout(this.#watchdog);
    this.#watchdog = setTimeout(() => this.#fail(otherwise), milliseconds);
  }

  #refused({ message, data }) {
    const reason = `satwatch refused the connection: ${message ?? "no reason given"}`;
    if (data?.code !== "unauthorized") return this.#fail(reason);
    this.#end(reason);
    this.#onState("unauthorized", reason);
  }

  #answer(number, data) {
    const waiting = this.#replies.get(number);
    this.#replies.delete(number);
    clearTimeout(waiting?.timer);
    waiting?.reply(data ?? {});
  }

  #receive(text) {
    let packet;
    try {
      packet = parse(text);
    } catch {
      return this.#fail("satwatch sent something unreadable.");
    }
    if (this.#since) this.#expect(this.#silence, "satwatch fell silent.");
    switch (packet.type) {
      case "0":
        this.#silence = packet.silence;
        return this.#link.send(`40${JSON.stringify(this.#payload()) ?? ""}`);
      case "1":
        return this.#fail("The connection was closed.");
      case "2":
        return this.#link.send(`3${text.slice(1)}`);
      case "40":
        this.#since = Date.now();
        this.#expect(this.#silence, "satwatch fell silent.");
        return this.#onState("connected", this.#link instanceof Polling ? "by polling: WebSockets do not get through" : "");
      case "41":
        return this.#fail("satwatch closed the connection.");
      case "42": {
        const [name, ...data] = packet.data;
        if (packet.number !== null) this.#link.send(`43${packet.number}[]`);
        return this.#handlers.get(name)?.(...data);
      }
      case "43":
        return this.#answer(packet.number, packet.data[0]);
      case "44":
        return this.#refused(packet.data ?? {});
    }
  }
}

/// One Engine.IO packet as {type, number, data}; throws on what is not one. Other types are the caller's to ignore.
function parse(text) {
  if (typeof text !== "string" || text === "") throw new Error("not a text packet");
  if (text[0] === "0") {
    const { pingInterval, pingTimeout } = JSON.parse(text.slice(1));
    if (!(pingInterval > 0 && pingTimeout > 0)) throw new Error("no heartbeat");
    return { type: "0", silence: pingInterval + pingTimeout };
  }
  if (text[0] !== "4") return { type: text[0] };
  const [, type, number, json] = /^4(\d)(\d*)(.*)$/s.exec(text);
  const data = json === "" ? undefined : JSON.parse(json);
  if ((type === "2" || type === "3") && !Array.isArray(data)) throw new Error("not a list");
  return { type: `4${type}`, number: number === "" ? null : Number(number), data };
}
