// Reading the event log: each event once, in order, from a cursor on, also over breaks and sleep.
//
// It is asked for with long polls, which replay what was missed and then wait for what comes. They
// are the page's connection, too: while one waits at the daemon, nothing is missed. A page that
// nobody looks at asks now and then instead: browsers hold few connections to one host.

import { call } from "./rest.js";

const WAIT_SECONDS = 25;
const PAUSE_MS = { live: 100, idle: 2_000 };
const RETRY_MS = { first: 500, most: 10_000 };
const STEADY_MS = 5_000;

let run = null;
let wake = () => {};

/// Begins, or begins anew at once: what is under way may hang since before a sleep.
///
/// `calls`: begin() resolves to the cursor to read from, also after a failure; heard(events,
/// cursor, isCurrent); lost(error) when the cursor is of no use any more; failed(error) for
/// another refusal, `true` if it need not be tried again; isWatched() whether somebody wants
/// news at once.
export function start(calls) {
  stop();
  run = new AbortController();
  read(calls, run.signal);
}

export function stop() {
  run?.abort();
  run = null;
}

/// Asks at once when it is between two questions.
export const hurry = () => wake();

async function read(calls, signal) {
  let cursor = null;
  let isCurrent = false;
  let failures = 0;
  let since = 0; // When it was answered after the last failure.
  let longest = WAIT_SECONDS;
  while (!signal.aborted) {
    const wait = isCurrent && calls.isWatched() ? longest : 0;
    let page;
    try {
      cursor ??= await calls.begin();
      const path = `events?address=all&descriptor=all&limit=1000&wait=${wait}&after=${encodeURIComponent(cursor)}`;
      page = await call("GET", path, undefined, { signal, seconds: wait + 15 });
    } catch (error) {
      if (signal.aborted) return;
      isCurrent = false;
      // As many wait as may; who does not wait is answered.
      if (error.code === "quota_reached") {
        await pause(PAUSE_MS.idle);
        continue;
      }
      // A proxy may cut what is quiet for so long.
      if (wait && !error.code) longest = Math.max(5, Math.floor(wait / 2));
      cursor = null;
      since = 0;
      if (/^cursor_|^invalid_cursor$/.test(error.code)) calls.lost(error);
      else if (calls.failed(error)) return;
      else await pause(Math.max(error.retryMs || 0, Math.min(RETRY_MS.most, RETRY_MS.first * 2 ** failures++) * (0.5 + Math.random() / 2)));
      continue;
    }
    if (signal.aborted) return;
    since ||= Date.now();
    if (wait || Date.now() - since > STEADY_MS) failures = 0;
    cursor = page.next;
    isCurrent = page.next === page.head;
    safely(() => calls.heard(page.events, cursor, isCurrent));
    if (isCurrent) await pause(calls.isWatched() ? PAUSE_MS.live : PAUSE_MS.idle);
  }
}

/// A fault of the page is no broken connection, and takes nothing else with it.
export function safely(work) {
  try {
    work();
  } catch (error) {
    reportError(error);
  }
}

function pause(milliseconds) {
  return new Promise((resolve) => {
    setTimeout(resolve, milliseconds);
    wake = resolve;
  });
}
