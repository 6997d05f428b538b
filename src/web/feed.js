// Payments: one row for each, which says how it stands now.

import * as away from "./away.js";
import { arrange, copyOf, element, make, mark, redraw, say, setText, show } from "./dom.js";
import * as login from "./login.js";
import { link, nameOf, newest, payments, state, subjects, touch } from "./state.js";
import { ago, amount, clock, direction, isGone, now, short, standing } from "./words.js";

const SHOWN = 150;

const buttons = document.querySelectorAll(".filters button");
let filter = "all";
const filters = {
  all: () => true,
  in: ({ net }) => net > 0,
  out: ({ net }) => net < 0,
  open: ({ status }) => status === "mempool",
};

export function begin() {
  for (const button of buttons) {
    button.onclick = () => {
      filter = button.dataset.filter;
      touch();
    };
  }
  // A new payment is marked until somebody looks at it.
  const look = ({ target }) => {
    const row = target.closest?.("#feed > li");
    const payment = row && payments.get(row.dataset.payment);
    if (payment?.fresh) {
      payment.fresh = false;
      touch();
    }
  };
  for (const name of ["pointerover", "focusin"]) element("feed").addEventListener(name, look);
}

export function draw() {
  if (!["payments", "detail", "watching"].includes(document.body.dataset.view)) return;
  const all = newest();
  const replayed = away.shown();
  const wanted = all.filter((payment) => filters[filter](payment) && (!replayed || replayed.has(payment.id)));
  const rows = wanted.slice(0, SHOWN);
  arrange(element("feed"), rows, makeRow, drawRow);
  const others = away.others();
  redraw(element("away-others"), others, () => others.map((words) => make("li", words)));
  for (const button of buttons) mark(button, "aria-pressed", button.dataset.filter === filter);
  say("open-count", all.filter(filters.open).length || "");
  show("older", rows.length > 0);
  const first = rows.length > 0 ? [] : firstWords(all.length);
  redraw(element("first"), first, () => first.map(([kind, words]) => make(kind, words)));
}

function makeRow(payment) {
  const node = copyOf("payment-row");
  node.dataset.payment = payment.id;
  node.dataset.txid = payment.txid;
  node.dataset.subject = payment.subject;
  const id = node.querySelector(".id");
  id.textContent = `tx ${short(payment.txid)}`;
  id.title = payment.txid;
  return node;
}

function drawRow(payment) {
  const { node } = payment;
  const [way, arrow, turn] = direction(payment.net);
  const { words, bars, look } = standing(payment, state.tip);
  const subject = subjects.get(payment.subject);
  mark(node, "data-way", way);
  mark(node, "data-look", look);
  node.classList.toggle("gone", isGone(payment));
  node.classList.toggle("fresh", Boolean(payment.fresh));
  setText(node, ".way", arrow);
  setText(node, ".turn", turn);
  setText(node, ".name", nameOf(payment.subject));
  mark(node.querySelector(".name"), "href", link(subject ?? { kind: "address", key: payment.subject }));
  setText(node, ".amount", amount(payment.net, true));
  setText(node, ".whose", payment.via ? short(payment.via) : subject?.label && subject.kind === "address" ? short(subject.key) : "");
  setText(node, ".status", words);
  drawTime(node.querySelector("time"), payment);
  node.querySelectorAll(".bars i").forEach((bar, at) => bar.classList.toggle("full", at < bars));
}

export function drawTime(time, { status, block_time: mined, time: seen }) {
  const at = status === "confirmed" && mined ? mined : seen;
  const text = ago(now() - at);
  if (time.textContent !== text) time.textContent = text;
  if (time.dataset.at === String(at)) return;
  time.dataset.at = at;
  time.dateTime = new Date(at * 1000).toISOString();
  time.title = clock(at);
}

// ---- when there is nothing yet

/// What to do first, as [element, text].
function firstWords(all) {
  const { daemon } = state;
  if (away.shown()) return [];
  if (daemon.service_available === false) {
    const notes = (daemon.node?.notes ?? []).filter(({ ok }) => !ok);
    const lines = notes.flatMap(({ what, remedy }) => [["p", what], remedy && ["pre", remedy]]).filter(Boolean);
    return [["h3", "The Bitcoin node does not answer"], ...lines, ["p", "Where the daemon runs, this finds out what is wrong and says what to put where:"], ["pre", "satwatch doctor"]];
  }
  if (!state.listed) return [];
  if (subjects.size === 0) {
    const how = login.may("watch")
      ? "Paste an address, a bitcoin: link or a wallet's descriptor into the field on the list. Payments appear the moment the node accepts them."
      : login.whyNot("watch", "adding one");
    const where = daemon.network === "regtest" ? [["p", "The node's own wallet gives an address:"], ["pre", "bitcoin-cli -regtest getnewaddress"]] : [["p", "Your wallet shows one under “Receive”."]];
    return [["h3", "Nothing is watched yet"], ["p", how], ...where];
  }
  if (all > 0) return [["p", "No payment like that here."]];
  return [["h3", "No payment yet"], ["p", "Payments appear the moment the node accepts them."], ...payLine()];
}

function payLine() {
  if (state.daemon.network !== "regtest") return [];
  const address = [...subjects.values()].find(({ kind }) => kind === "address")?.key ?? "ADDRESS";
  return [["p", "This one pays it:"], ["pre", `bitcoin-cli -regtest -named sendtoaddress address=${address} amount=0.01 fee_rate=2`]];
}
