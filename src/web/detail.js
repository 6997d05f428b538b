// One address or wallet: balance, steps over time, outputs, transactions in pages, what to receive
// with, its history, and what can be done to it.

import { chart, steps } from "./chart.js";
import { bar, confirmed, copyOf, element, make, mark, setText } from "./dom.js";
import { drawTime } from "./feed.js";
import { drawParts } from "./parts.js";
import * as login from "./login.js";
import { drawReceive } from "./receive.js";
import { call } from "./rest.js";
import { drawScan } from "./scan.js";
import { balancePath, forget, nameOf, outputsPath, put, state, subjects, touch, transactionsPath } from "./state.js";
import { freshenShown } from "./sync.js";
import { amount, amountUnit, btc, clock, count, isGone, now, short, standing, unit } from "./words.js";

const PAGE = 25;
const CHARTED = 500;

let shown = null; // {key, kind, node, error, transactions, more, outputs, …} of what is open.

/// `null` closes it. What is not on the list may still be watched, as an address of a wallet is.
export function open(key, kind) {
  if (key === shown?.key) return;
  const place = element("detail");
  place.hidden = key === null;
  document.body.classList.toggle("has-detail", key !== null);
  shown = null;
  if (key === null) return place.replaceChildren();
  const node = copyOf("detail-view");
  shown = { key, kind: kind === "wallet" ? "descriptor" : "address", node, transactions: [], outputs: [], version: -1, at: 0 };
  place.replaceChildren(node);
  listen(shown);
  place.scrollTop = 0;
  element("detail-title").focus({ preventScroll: true });
}

const subjectOf = ({ key, kind, own }) => subjects.get(key) ?? own ?? { key, kind, label: "", count: 0, version: 0 };

function listen(view) {
  const on = (selector, act, kind = "click") => view.node.querySelector(selector).addEventListener(kind, act);
  on(".copy", ({ target }) => copy(target, view.kind === "descriptor" ? subjectOf(view).descriptor : view.key));
  on(".older-tx", () => readMore(view));
  on(".more-out", () => readOutputs(view, true));
  on(".remove", () => remove(view));
  on(".audit", () => audit(view));
  on(".edit", () => editLabel(view));
  on(".label-form", (event) => saveLabel(event, view), "submit");
}

export async function copy(button, text) {
  const before = button.textContent;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    button.textContent = "Select and copy it";
  }
  setTimeout(() => (button.textContent = before), 2_000);
}

// ---- reading

/// Again whenever an event has told of it, at most once a second.
async function refresh(view, subject) {
  const stands = `${subjects.has(view.key) ? subject.version : state.heard} ${state.tip?.hash}`;
  if (view.reading || view.version === stands || now() - view.at < 1) return;
  Object.assign(view, { reading: true, version: stands, at: now() });
  try {
    if (!subjects.has(view.key)) view.own = { ...subjectOf(view), ...own(await call("GET", balancePath(subject))) };
    const limit = Math.max(PAGE, Math.min(CHARTED, view.transactions.length));
    const page = await call("GET", `${transactionsPath(subject)}?limit=${limit}`);
    Object.assign(view, { transactions: page.transactions, next: page.next, count: page.total, error: "" });
    await readOutputs(view, false);
  } catch (error) {
    if (login.seen(error)) return;
    view.error = error.message;
    if (error.status === 404) view.gone = true;
  } finally {
    view.reading = false;
  }
  touch();
}

const own = ({ balance, confirmed_balance: confirmed, unconfirmed_balance: unconfirmed, immature, coverage }) => ({ balance, confirmed, unconfirmed, immature, coverage });

async function readMore(view) {
  await login.attempt(async () => {
    const path = `${transactionsPath(subjectOf(view))}?limit=${PAGE * 4}&before=${encodeURIComponent(view.next)}`;
    const { transactions, next } = await call("GET", path);
    view.transactions.push(...transactions);
    view.next = next;
  }, (words) => (view.error = words));
}

async function readOutputs(view, isMore) {
  const after = isMore ? `&after=${encodeURIComponent(view.nextOutput)}` : "";
  const answer = await call("GET", `${outputsPath(subjectOf(view))}?limit=${PAGE}${after}`);
  view.outputs = isMore ? [...view.outputs, ...answer.utxos] : answer.utxos;
  Object.assign(view, { nextOutput: answer.next, outputCount: answer.total });
  touch();
}

// ---- drawing

export function draw() {
  if (!shown) return;
  const view = shown;
  const { node } = view;
  const subject = subjectOf(view);
  const isWallet = view.kind === "descriptor";
  if (view.gone && subjects.has(view.key)) Object.assign(view, { gone: false, version: -1 });
  node.classList.toggle("absent", Boolean(view.gone));
  setText(node, "#detail-title", nameOf(view.key));
  setText(node, ".text code", isWallet ? (subject.descriptor ?? "") : view.key);
  setText(node, ".value", amount(subject.balance));
  setText(node, ".total .unit", unit());
  setText(node, ".confirmed", amount(subject.confirmed));
  setText(node, ".unconfirmed", amount(subject.unconfirmed, true));
  setText(node, ".immature", amount(subject.immature));
  node.querySelector(".fresh-mined").hidden = !subject.immature;
  node.dataset.key = view.key;
  node.classList.toggle("partial", subject.coverage?.utxos_complete === false);
  setText(node, ".coverage", view.error || coverageWords(subject));
  for (const [selector, scope] of [[".remove", "watch"], [".edit", "watch"], [".audit", "admin"]]) {
    bar(node.querySelector(selector), !login.may(scope), selector === ".audit" && Boolean(view.auditing));
  }
  // What an address of a wallet alone is called is not known here.
  node.querySelector(".edit").hidden = !subjects.has(view.key);
  if (subject.coverage?.pending && now() - view.at > 2) Object.assign(view, { version: -1 });
  if (subjects.has(view.key)) {
    if (view.version === -1) subject.stale = true;
    freshenShown([subject]);
  }
  if (!view.gone && document.body.dataset.connection === "connected") refresh(view, subject);
  drawChart(view, subject);
  drawTransactions(view);
  drawOutputs(view);
  drawReceive(node.querySelector(".receive"), view, subject);
  drawScan(node.querySelector(".scan"), view, subject, () => Object.assign(view, { version: -1 }));
  drawParts(node.querySelector(".parts"), view, isWallet);
}

function coverageWords({ coverage, balance }) {
  if (balance === undefined) return "";
  if (coverage?.pending && coverage.utxos_complete) return "Reading its history; the balance is complete.";
  if (coverage?.pending) return "Looking for earlier payments; the balance is not complete yet.";
  return coverage?.utxos_complete === false ? "Counts only payments since the daemon began to watch it." : "";
}

function drawChart(view, subject) {
  const drawn = JSON.stringify([subject.balance, view.transactions.length, view.transactions[0]?.txid, view.transactions[0]?.status, amount(1)]);
  if (drawn === view.charted || subject.balance === undefined) return;
  view.charted = drawn;
  const time = now();
  const points = steps(view.transactions, subject.balance, time);
  const since = points.length > 0 ? clock(points[0][0]) : "";
  const image = chart(points, time, `Balance since ${since}, now ${amountUnit(subject.balance)}`);
  const words = make("p.quiet", `since ${since}`);
  view.node.querySelector(".chart").replaceChildren(...image, ...(image.length > 0 ? [words] : []));
}

function drawTransactions(view) {
  const { node, transactions } = view;
  setText(node, ".tx-count", view.count ?? "");
  node.querySelector(".older-tx").hidden = !view.next;
  const drawn = JSON.stringify([view.count, transactions.map((tx) => [tx.txid, tx.status, tx.net]), state.tip?.height, amount(1), Math.floor(now() / 30)]);
  if (drawn === view.drawn) return;
  view.drawn = drawn;
  node.querySelector(".transactions").replaceChildren(...transactions.map(transactionRow));
  if (view.count === 0) node.querySelector(".transactions").append(make("li.quiet", "None is known."));
}

function transactionRow(tx) {
  const { words, look } = standing(tx, state.tip);
  const time = make("time");
  drawTime(time, { ...tx, time: tx.first_seen });
  const row = make("li", { className: isGone(tx) ? "gone" : "" }, make("span.amount", amount(tx.net, true)), time,
    make("span.status", words), make("code", { textContent: short(tx.txid), title: tx.txid }));
  row.dataset.txid = tx.txid;
  mark(row, "data-look", look);
  return row;
}

function drawOutputs(view) {
  const { node, outputs } = view;
  setText(node, ".out-count", view.outputCount ?? "");
  node.querySelector(".more-out").hidden = !view.nextOutput;
  const drawn = JSON.stringify([outputs.map((output) => [output.tx_hash, output.output_index, output.confirmations]), amount(1)]);
  if (drawn === view.drawnOutputs) return;
  view.drawnOutputs = drawn;
  const rows = outputs.map((output) => {
    const where = output.confirmed ? `block ${output.block_height}` : "unconfirmed";
    const state = output.coinbase && !output.mature ? `${where}, not spendable yet` : where;
    const id = `${short(output.tx_hash)}:${output.output_index}`;
    return make("li", {}, make("span.amount", amount(output.value)), make("span.status", state), make("code", { textContent: id, title: output.tx_hash }));
  });
  node.querySelector(".outputs").replaceChildren(...rows);
}

// ---- label, removal, audit

const itsPath = ({ kind, key }) => `${kind === "descriptor" ? "descriptors" : "addresses"}/${encodeURIComponent(key)}`;

function editLabel(view) {
  const form = view.node.querySelector(".label-form");
  form.hidden = !form.hidden;
  const field = form.querySelector("input");
  field.value = subjectOf(view).label;
  if (!form.hidden) field.focus();
}

async function saveLabel(event, view) {
  event.preventDefault();
  const label = event.target.querySelector("input").value.trim();
  const save = async () => {
    await call("PATCH", itsPath(view), { label });
    put(view.kind, view.key, { label });
    view.error = "";
  };
  await login.attempt(save, (words) => (view.error = words));
  event.target.hidden = true;
  view.node.querySelector(".edit").focus();
}

async function remove(view) {
  const what = view.kind === "descriptor" ? "wallet, with its addresses" : "address";
  const name = nameOf(view.key);
  if (!(await confirmed(`Stop watching ${name}?`, `satwatch forgets this ${what}, and what it knows of it. Payments to it are not told any more.`, "Stop watching"))) return;
  const act = async () => {
    await call("DELETE", itsPath(view), undefined, { seconds: 60 });
    forget(view.key);
    location.hash = "#/watching";
  };
  await login.attempt(act, (words) => (view.error = words));
}

async function audit(view) {
  const said = (words) => setText(view.node, ".audit-note", words);
  view.auditing = true;
  said("Asking the node; on the main chain that takes minutes.");
  touch();
  const ask = async () => {
    const answer = await call("POST", `audit/${view.kind === "descriptor" ? "descriptors/" : ""}${encodeURIComponent(view.key)}`, undefined, { seconds: 3_600 });
    const { missing, extra, different, ours, block } = answer;
    const wrong = [[missing, "missing here"], [extra, "too much here"], [different, "different"]];
    const found = wrong.filter(([list]) => list.length > 0).map(([list, words]) => `${list.length} ${words}`);
    said(answer.agrees ? `Agrees with the node at block ${block.height}: ${count(ours.count, "output")}, ${btc(ours.total)} BTC.` : `Does not agree with the node at block ${block.height}: ${found.join(", ")}.`);
  };
  await login.attempt(ask, said);
  view.auditing = false;
  touch();
}

