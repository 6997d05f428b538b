// The node and what comes from it: answers, feeds, gaps, repairs; start and stop.

import { bar, button, confirmed, element, make } from "./dom.js";
import * as login from "./login.js";
import { call } from "./rest.js";
import { state } from "./state.js";
import { refreshStatus } from "./sync.js";
import { height, now, span } from "./words.js";

let drawn = "";
let complaint = "";

/// "start" or "stop".
export async function monitoring(word) {
  complaint = "";
  await login.attempt(() => call("POST", word, undefined, { seconds: 60 }), (words) => (complaint = words));
  await refreshStatus();
}

export function draw() {
  const { daemon } = state;
  if (!daemon.node) return;
  const running = daemon.realtime_monitoring;
  const now = JSON.stringify([facts(daemon), topics(daemon), notes(daemon), running, complaint, login.may("admin")]);
  if (now === drawn) return;
  const hadFocus = element("node-body").contains(document.activeElement);
  drawn = now;
  const pairs = facts(daemon).map(([name, value]) => make("div", {}, make("dt", name), make("dd", value)));
  const turning = button(running ? "Stop monitoring" : "Start monitoring", () => turn(running));
  bar(turning, !login.may("admin"));
  const why = login.whyNot("admin", "starting and stopping");
  element("node-body").replaceChildren(
    make("dl.facts-list", {}, ...pairs),
    make("div.row", {}, turning, make("span.quiet", complaint || why)),
    make("h3", "Feeds"),
    table(["Topic", "State", "Last message", "Gaps", "Lost"], topics(daemon)),
    make("h3", "What was looked at"),
    make("ul.notes", {}, ...notes(daemon).map(([ok, what, remedy]) => make("li", { className: ok ? "line done" : "line gone" }, what, remedy && make("pre", remedy)))),
  );
  if (hadFocus) turning.focus();
}

async function turn(running) {
  if (!running) return monitoring("start");
  const words = "Payments are not seen until it starts again, also after a restart of satwatch. What is missed meanwhile comes with its events then.";
  if (await confirmed("Stop monitoring?", words, "Stop monitoring")) monitoring("stop");
}

const old = (age) => (age === null || age === undefined ? "never" : age < 10 ? "just now" : `${span(Math.floor(age / 10) * 10)} ago`);

function facts({ node, reconcile, mempool, version, uptime, transactions, total_utxos: utxos, tip }) {
  return [
    ["Node", node.available ? (node.subversion ?? "answers") : `does not answer${node.error ? `: ${node.error}` : ""}`],
    ["Last answer", old(node.last_answer_age)],
    ["Chain", `${node.chain ?? "–"}${node.pruned ? ", pruned" : ""}`],
    ["Followed up to", tip ? `block ${height(tip.height)} of ${height(node.blocks ?? tip.height)}` : "–"],
    ["Peers", String(node.connections ?? "–")],
    ["Mempool", mempool.loaded ? `${height(mempool.size)} transactions` : "being read"],
    ["Compared with the node", `every ${reconcile.interval} s, last ${old(reconcile.last_run === null ? null : now() - reconcile.last_run)}`],
    ["Found by looking again", height(reconcile.repairs)],
    ["Kept here", `${height(transactions)} transactions, ${height(utxos)} outputs`],
    ["satwatch", `${version}, up ${span(Math.floor(uptime / 60) * 60)}`],
  ];
}

const topics = ({ zmq }) => Object.entries(zmq).map(([name, it]) => [name, it.connected ? (it.believed === false ? "connected, not this node's" : "connected") : "not connected", old(it.last_message_age), it.gaps, it.lost]);
const notes = ({ node }) => (node.notes ?? []).map(({ ok, what, remedy }) => [ok, what, remedy]);

function table(names, rows) {
  const head = names.map((textContent) => Object.assign(make("th", textContent), { scope: "col" }));
  return make("table", {}, make("thead", {}, make("tr", {}, ...head)), make("tbody", {}, ...rows.map((row) => make("tr", {}, ...row.map((textContent) => make("td", textContent))))));
}
