// One line that says whether what is shown can be trusted: followed or not, how old, what was lost
// and mended.

import { element, isConnected, mark, say } from "./dom.js";
import { state } from "./state.js";
import { clock, count, height, now, span } from "./words.js";

const OLD_SECONDS = 60;

/// What, in the answer of GET /status, keeps payments from being seen, if anything.
export function trouble(daemon) {
  if (daemon.realtime_monitoring === false) return "Monitoring is stopped: payments are not seen until it starts again.";
  if (daemon.service_available === false) return "The Bitcoin node does not answer: balances are as of the block above, new payments are not seen.";
  if (daemon.following === false) return `Not up to date with the Bitcoin node. ${daemon.not_following_because ?? ""}`;
  return "";
}

/// `upTo`: when the connection was last there.
export function drawTruth(upTo) {
  const { daemon, tip } = state;
  const facts = document.querySelector(".facts");
  facts.hidden = !tip;
  const [look, following, feed, losses] = judge(daemon, tip, upTo);
  mark(element("truth"), "data-state", look);
  for (const [id, text] of [["following", following], ["feed-state", feed], ["losses", losses]]) say(id, text);
  say("network", daemon.network ?? "");
  element("network").hidden = !daemon.network;
}

function judge(daemon, tip, upTo) {
  const block = tip ? `block ${height(tip.height)}` : "";
  if (!isConnected()) return ["waiting", block && `What you see is from ${upTo && Number.isFinite(upTo) ? clock(upTo) : "before"}, ${block}`, "", ""];
  const age = tip?.time ? `, ${span(now() - tip.time)} old` : "";
  if (daemon.realtime_monitoring === false) return ["resting", `resting at ${block}${age}`, "", ""];
  if (daemon.following === undefined) return ["waiting", block, "", ""];
  const heard = daemon.data_age === null ? null : daemon.data_age + (state.daemonAt ? now() - state.daemonAt : 0);
  if (daemon.following === false) return ["bad", `not following the node; ${block}${age}`, heard === null ? "" : `heard from it ${span(heard)} ago`, ""];
  return ["good", `following ${block}${age}`, feedWords(daemon, heard), lossWords(daemon)];
}

function feedWords({ zmq, reconcile }, heard) {
  if (heard > OLD_SECONDS) return `nothing heard from the node for ${span(heard)}`;
  const topics = Object.values(zmq ?? {});
  if (topics.every(({ connected }) => connected)) return "feed alive";
  const every = reconcile ? `every ${reconcile.interval} s` : "now and then";
  return topics.some(({ connected }) => connected) ? `part of the feed is missing, the node is asked ${every}` : `no feed, the node is asked ${every}`;
}

function lossWords({ zmq, reconcile }) {
  const lost = Object.values(zmq ?? {}).reduce((sum, topic) => sum + topic.lost, 0);
  const repairs = reconcile?.repairs ?? 0;
  if (lost === 0 && repairs === 0) return "nothing lost";
  const parts = [lost > 0 && `${count(lost, "message")} of the node lost`, repairs > 0 && `${count(repairs, "thing")} found by looking again`];
  return `${parts.filter(Boolean).join(", ")}; all mended`;
}
