// Engine.IO 4 over HTTP, with those methods and handlers of a WebSocket that ./socket.js uses: for
// proxies that do not pass WebSockets on.
//
// One GET waits for packets all the time; what is sent meanwhile goes in one POST after the other.
// The packets of a body are separated by U+001E, and the first one that comes names the session.

const SEPARATOR = "\x1e";

export class Polling {
  onmessage = null;
  /// Hears {words} once: a sentence for the person, unless this side closed.
  onclose = null;
  #url;
  #end = new AbortController();
  #unsent = [];
  #sending = false;

  constructor(url) {
    this.#url = new URL(url);
    this.#receive();
  }

  send(packet) {
    this.#unsent.push(packet);
    this.#flush();
  }

  close() {
    if (this.#end.signal.aborted) return;
    this.#end.abort();
    // The session need not wait for its time limit; nobody waits for the answer.
    if (this.#url.searchParams.has("sid")) fetch(this.#url, { method: "POST", body: "1", keepalive: true }).catch(() => {});
  }

  async #receive() {
    try {
      while (!this.#end.signal.aborted) {
        const text = await this.#ask("GET");
        for (const packet of text.split(SEPARATOR)) {
          if (packet[0] === "0") this.#url.searchParams.set("sid", JSON.parse(packet.slice(1)).sid);
          this.onmessage?.({ data: packet });
        }
      }
    } catch (error) {
      this.#fail(error);
    }
  }

  async #flush() {
    if (this.#sending) return;
    this.#sending = true;
    try {
      while (this.#unsent.length > 0) await this.#ask("POST", this.#unsent.splice(0).join(SEPARATOR));
    } catch (error) {
      this.#fail(error);
    } finally {
      this.#sending = false;
    }
  }

  async #ask(method, body) {
    const answer = await fetch(this.#url, { method, body, cache: "no-store", signal: this.#end.signal });
    const text = await answer.text();
    if (answer.ok) return text;
    throw new Error(wordsIn(text) ?? `The server answered ${answer.status}.`);
  }

  #fail(error) {
    if (this.#end.signal.aborted) return;
    this.#end.abort();
    this.onclose?.({ words: error instanceof TypeError ? "The connection was lost." : error.message });
  }
}

/// The sentence in the daemon's answer to what it refuses; a proxy's own answers have none.
function wordsIn(text) {
  try {
    return JSON.parse(text).error;
  } catch {
    return undefined;
  }
}
