// Reading the history of an address or wallet from the chain: how far, how long, and its end.

import { bar, button, make } from "./dom.js";
import * as login from "./login.js";
import { call } from "./rest.js";
import { state } from "./state.js";
import { count, height, now, span } from "./words.js";

const OPEN = ["queued", "scanning", "waiting"];

export function drawScan(place, view, subject, ended) {
  if (place.childElementCount === 0) build(place, view);
  const parts = view.scan;
  // One that somebody else began is in the status, if it is a wallet's.
  const open = state.daemon.scans?.find(({ descriptor_id: id }) => id === view.key);
  if (!parts.id && open) parts.id = open.scan_id;
  if (parts.id && now() - parts.at > 1 && document.body.dataset.connection === "connected") follow(parts, ended);
  const { scan } = parts;
  const isOpen = Boolean(scan && OPEN.includes(scan.status));
  const from = subject.coverage?.from_height;
  parts.known.textContent = from === 0 ? "Its whole history is known." : from > 0 ? `Every transaction from block ${height(from)} on is known.` : "";
  parts.form.hidden = isOpen || from === 0;
  parts.running.hidden = !isOpen;
  bar(parts.begin, !login.may("watch"));
  bar(parts.cancel, !login.may("watch"));
  if (isOpen) parts.progress.value = scan.percent;
  const words = parts.error || (scan ? scanWords(scan) : "");
  if (parts.words.textContent !== words) parts.words.textContent = words;
}

function scanWords(scan) {
  if (scan.status === "complete") return `History read: ${count(scan.transactions, "transaction")} found.`;
  if (scan.status === "cancelled") return "Cancelled. What was found stays.";
  if (scan.status === "waiting") return `Waiting: ${scan.waits_for ?? ""}`;
  if (scan.status === "queued") return "Waiting for its turn.";
  const speed = scan.blocks_per_second ? `, ${count(Math.round(scan.blocks_per_second), "block")} a second` : "";
  return `${Math.floor(scan.percent)} %${speed}${scan.seconds_left === null ? "" : `, ${span(scan.seconds_left)} left`}`;
}

function build(place, view) {
  const words = make("p.scan-words", {});
  words.setAttribute("role", "status");
  const from = make("input", { id: "from-height", inputMode: "numeric", value: "0", autocomplete: "off" });
  const begin = make("button", "Read history");
  const form = make("form", {}, make("div.field", {}, make("label", { htmlFor: "from-height", textContent: "From block" }), from), begin);
  const progress = make("progress", { max: 100 });
  progress.setAttribute("aria-label", "History scan");
  const cancel = button("Cancel", () => stop(view.scan));
  const running = make("div.row", {}, progress, cancel);
  const known = make("p.quiet");
  view.scan = { words, form, begin, progress, cancel, running, known, at: 0, error: "" };
  form.addEventListener("submit", (event) => start(event, view, Number(from.value)));
  place.append(make("h3", "History"), known, form, running, words);
}

async function start(event, view, from_height) {
  event.preventDefault();
  const parts = view.scan;
  const what = view.kind === "descriptor" ? { descriptor_id: view.key } : { addresses: [view.key] };
  const begin = async () => {
    const { scan_id: id } = await call("POST", "scan_history", { ...what, from_height });
    Object.assign(parts, { id, at: 0, error: "", scan: null });
  };
  await login.attempt(begin, (words) => (parts.error = words));
}

async function follow(parts, ended) {
  parts.at = now();
  const look = async () => {
    parts.scan = await call("GET", `scans/${parts.id}`);
    if (OPEN.includes(parts.scan.status)) return;
    parts.id = null;
    ended();
  };
  await login.attempt(look, (words) => ([parts.id, parts.error] = [null, words]));
}

async function stop(parts) {
  await login.attempt(() => call("DELETE", `scans/${parts.id}`), (words) => (parts.error = words));
  parts.at = 0;
}
