// The node and what comes from it: answers, feeds, gaps, repairs; start and stop.

import { bar, button, confirmed, element, make, redraw } from "./dom.js";
import * as login from "./login.js";
import { call } from "./rest.js";
import { state } from "./state.js";
import { refreshStatus } from "./sync.js";
import { height, now, span } from "./words.js";

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
  const place = element("node-body");
  const hadFocus = place.contains(document.activeElement);
  const [pairs, rows, notes] = [facts(daemon), topics(daemon), daemon.node.notes ?? []];
  const said = complaint || login.whyNot("admin", "starting and stopping");
  redraw(place, [pairs, rows, notes, running, said], () => {
    const turning = button(running ? "Stop monitoring" : "Start monitoring", () => turn(running));
    bar(turning, !login.may("admin"));
    return [
      make("dl.facts-list", ...pairs.map(([name, value]) => make("div", make("dt", name), make("dd", value)))),
      make("div.row", turning, make("span.quiet", said)),
      make("h3", "Feeds"),
      table(["Topic", "State", "Last message", "Gaps", "Lost"], rows),
      make("h3", "What was looked at"),
      make("ul.notes", ...notes.map(({ ok, what, remedy }) => make(ok ? "li.line.done" : "li.line.gone", what, remedy && make("pre", remedy)))),
    ];
  });
  if (hadFocus) place.querySelector("button").focus();
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

function topics({ zmq }) {
  const how = ({ connected, believed }) => (!connected ? "not connected" : believed === false ? "connected, not this node's" : "connected");
  return Object.entries(zmq).map(([name, it]) => [name, how(it), old(it.last_message_age), `${it.gaps}`, `${it.lost}`]);
}

function table(names, rows) {
  const head = names.map((name) => make("th", name, { scope: "col" }));
  const body = rows.map((row) => make("tr", ...row.map((text) => make("td", text))));
  return make("table", make("thead", make("tr", ...head)), make("tbody", ...body));
}
