// Reading the history of an address or wallet from the chain: how far, how long, and its end.

import { bar, isConnected, setText } from "./dom.js";
import * as login from "./login.js";
import { call } from "./rest.js";
import { isWallet, state } from "./state.js";
import { count, height, now, span } from "./words.js";

const OPEN = ["queued", "scanning", "waiting"];

export function drawScan(place, view, { coverage }, ended) {
  const scan = (view.scan ??= begin(place, view));
  // One that somebody else began is in the status, if it is a wallet's.
  scan.id ??= state.daemon.scans?.find((one) => one.descriptor_id === view.key && one.scan_id !== scan.ended)?.scan_id;
  if (scan.id && now() - scan.at > 1 && isConnected()) follow(scan, ended);
  const isOpen = OPEN.includes(scan.stands?.status);
  const from = coverage?.from_height;
  setText(place, "p", from === 0 ? "Its whole history is known." : from > 0 ? `Every transaction from block ${height(from)} on is known.` : "");
  place.querySelector("form").hidden = isOpen || from === 0;
  place.querySelector(".row").hidden = !isOpen;
  for (const button of place.querySelectorAll("button")) bar(button, !login.may("watch"));
  if (isOpen) place.querySelector("progress").value = scan.stands.percent;
  setText(place, ".scan-words", scan.error || (scan.stands ? scanWords(scan.stands) : ""));
}

function scanWords(scan) {
  if (scan.status === "complete") return `History read: ${count(scan.transactions, "transaction")} found.`;
  if (scan.status === "cancelled") return "Cancelled. What was found stays.";
  if (scan.status === "waiting") return `Waiting: ${scan.waits_for ?? ""}`;
  if (scan.status === "queued") return "Waiting for its turn.";
  const speed = scan.blocks_per_second ? `, ${count(Math.round(scan.blocks_per_second), "block")} a second` : "";
  return `${Math.floor(scan.percent)} %${speed}${scan.seconds_left === null ? "" : `, ${span(scan.seconds_left)} left`}`;
}

/// {id, at: when it was asked for, stands: what was answered, error}
function begin(place, view) {
  const scan = { at: 0 };
  place.querySelector("form").onsubmit = (event) => start(event, view, Number(place.querySelector("input").value));
  place.querySelector(".row button").onclick = () => stop(scan);
  return scan;
}

async function start(event, view, from_height) {
  event.preventDefault();
  const { scan } = view;
  const what = isWallet(view) ? { descriptor_id: view.key } : { addresses: [view.key] };
  const begin = async () => {
    const { scan_id: id } = await call("POST", "scan_history", { ...what, from_height });
    Object.assign(scan, { id, at: 0, error: "", stands: null });
  };
  await login.attempt(begin, (words) => (scan.error = words));
}

async function follow(scan, ended) {
  scan.at = now();
  const look = async () => {
    scan.stands = await call("GET", `scans/${scan.id}`);
    scan.error = "";
    if (OPEN.includes(scan.stands.status)) return;
    // The status may still have it.
    Object.assign(scan, { id: null, ended: scan.id });
    ended();
  };
  // Other refusals than that there is none are for now.
  await login.attempt(look, (words, { status }) => Object.assign(scan, { error: words }, status === 404 && { id: null, ended: scan.id, stands: null }));
}

async function stop(scan) {
  await login.attempt(() => call("DELETE", `scans/${scan.id}`), (words) => (scan.error = words));
  scan.at = 0;
}
