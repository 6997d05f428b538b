// What happened while nobody could see it: the page was closed, asleep, hidden or not connected.

import { element, mark, say, show } from "./dom.js";
import { payments, touch } from "./state.js";
import { clock, count, now } from "./words.js";

const KEPT = 400;
const HIDDEN_SECONDS = 30; // A glance at another tab is not being away.

let from = null; // Since when, in seconds, while nobody can see it.
let things = new Map(); // What happened since: by payment, or by a name of its own with words for it.
let told = null; // What is said now: {things, from, words}.
export let isShown = false;

export const shown = () => (isShown && told ? told.things : null);

export function since(time) {
  from ??= time;
}

export function happened(key, words = "") {
  if (from === null) return;
  things.set(key, words);
  if (things.size > KEPT) things.delete(things.keys().next().value);
}

/// The log is replayed up to its head: whoever looks is told.
export function caughtUp() {
  if (from === null || document.hidden) return;
  if (things.size > 0) {
    const earlier = told?.things ?? [];
    told = { things: new Map([...earlier, ...things].slice(-KEPT)), from: Math.min(from, told?.from ?? from), words: told?.words };
  }
  from = null;
  things = new Map();
  touch();
}

/// The tab was hidden, or came back.
export function looked() {
  if (document.hidden) return since(now());
  if (from !== null && things.size > 0 && now() - from < HIDDEN_SECONDS) things = new Map();
}

/// The log of before is not there any more.
export function lost(words) {
  told = { things: told?.things ?? new Map(), from: from ?? now(), words };
}

export function forget() {
  [from, told, isShown] = [null, null, false];
  things = new Map();
}

export function begin() {
  element("away-show").onclick = () => {
    isShown = !isShown;
    touch();
  };
  element("away-close").onclick = () => {
    forget();
    touch();
    element("payments-title").focus();
  };
}

export function draw() {
  show("away", told !== null);
  if (!told) return;
  const size = told.things.size;
  const happened = size > 0 && `${count(size, "thing")}${size < KEPT ? "" : " or more"} while you were away`;
  say("away-text", [told.words && `The log begins anew. ${told.words}`, happened].filter(Boolean).join(" "));
  say("away-since", `since ${clock(told.from)}, replayed from the log`);
  show("away-since", size > 0);
  show("away-show", size > 0);
  say("away-show", isShown ? "Show all" : "Show");
  mark(element("away-show"), "aria-pressed", isShown);
}

/// What no payment shows.
export function others() {
  return [...(shown() ?? [])].filter(([key, words]) => words && !payments.has(key)).map(([, words]) => words);
}
