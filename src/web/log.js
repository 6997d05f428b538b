// Reading the event log: each event once, in order, from a cursor on, also over breaks and sleep.
//
// It is asked for with long polls, which replay what was missed and then wait for what comes. A page
// that nobody looks at asks now and then instead: browsers hold few connections to one host.

import { call } from "./rest.js";

const WAIT_SECONDS = 25;
const PAUSE_MS = { live: 100, idle: 2_000, failed: 2_000 };

export class LogReader {
  cursor = null;
  /// Since when it could not be read, in milliseconds; 0 while it can.
  failing = 0;
  /// Whether everything up to the head has been told.
  current = false;
  #query;
  #calls;
  #run = null;

  /// `calls`: heard(events, isCurrent), lost(error) when the cursor is of no use any more,
  /// failed(error) for any other refusal, isWatched() whether somebody wants news at once.
  constructor(query, calls) {
    this.#query = query;
    this.#calls = calls;
  }

  /// Begins, or begins anew at once: what is under way may hang since before a sleep.
  start() {
    this.stop();
    this.#run = new AbortController();
    this.#read(this.#run.signal);
  }

  stop() {
    this.#run?.abort();
    this.#run = null;
    this.current = false;
  }

  /// Asks at once when it is between two questions.
  hurry() {
    this.wake?.();
  }

  async #read(signal) {
    while (!signal.aborted) {
      const wait = this.current && this.#calls.isWatched() ? WAIT_SECONDS : 0;
      const after = this.cursor ? `&after=${encodeURIComponent(this.cursor)}` : "";
      try {
        const path = `events?${this.#query}limit=1000&wait=${wait}${after}`;
        const page = await call("GET", path, undefined, { signal, seconds: wait + 15 });
        if (signal.aborted) return;
        this.failing = 0;
        this.cursor = page.next;
        this.current = page.next === page.head;
        this.#calls.heard(page.events, this.current);
        if (this.current) await this.#pause(this.#calls.isWatched() ? PAUSE_MS.live : PAUSE_MS.idle);
      } catch (error) {
        if (signal.aborted) return;
        this.current = false;
        if (/^cursor_/.test(error.code)) return this.#calls.lost(error);
        this.failing ||= Date.now();
        this.#calls.failed(error);
        await this.#pause(PAUSE_MS.failed);
      }
    }
  }

  #pause(milliseconds) {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, milliseconds);
      this.wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }
}
