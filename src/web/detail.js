// One address or wallet: balance, steps over time, outputs, transactions in pages, what to receive
// with, its history, and what can be done to it.

import { chart, steps } from "./chart.js";
import { bar, confirmed, copyOf, element, isConnected, make, redraw, setText } from "./dom.js";
import { drawTime } from "./feed.js";
import { drawParts } from "./parts.js";
import * as login from "./login.js";
import { drawReceive } from "./receive.js";
import { call } from "./rest.js";
import { drawScan } from "./scan.js";
import { forget, isReading, isWallet, nameOf, path, put, state, subjects, touch } from "./state.js";
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
  const find = (selector) => node.querySelector(selector);
  shown = { key, kind: kind === "wallet" ? "descriptor" : "address", node, find, transactions: [], outputs: [], version: -1, at: 0 };
  place.replaceChildren(node);
  listen(shown);
  place.scrollTop = 0;
  element("detail-title").focus({ preventScroll: true });
}

const subjectOf = ({ key, kind, own }) => subjects.get(key) ?? own ?? { key, kind, label: "" };

function listen(view) {
  const { find } = view;
  find(".copy").onclick = ({ target }) => copy(target, isWallet(view) ? subjectOf(view).descriptor : view.key);
  find(".older-tx").onclick = () => readMore(view);
  find(".more-out").onclick = () => readOutputs(view, true);
  find(".remove").onclick = () => remove(view);
  find(".audit").onclick = () => audit(view);
  find(".edit").onclick = () => editLabel(view);
  find(".label-form").onsubmit = (event) => saveLabel(event, view);
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

const fails = (view) => (words) => (view.error = words);

// ---- reading

/// Again whenever an event has told of it, at most once a second.
async function refresh(view, subject) {
  const stands = `${subjects.has(view.key) ? subject.version : state.heard} ${state.tip?.hash}`;
  if (view.reading || view.version === stands || now() - view.at < 1) return;
  Object.assign(view, { reading: true, version: stands, at: now() });
  try {
    if (!subjects.has(view.key)) view.own = { ...subject, ...(await call("GET", path(subject, "balance"))) };
    const limit = Math.max(PAGE, Math.min(CHARTED, view.transactions.length));
    const page = await call("GET", `${path(subject, "transactions")}?limit=${limit}`);
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

async function readMore(view) {
  await login.attempt(async () => {
    const query = `?limit=${PAGE * 4}&before=${encodeURIComponent(view.next)}`;
    const { transactions, next } = await call("GET", path(subjectOf(view), "transactions") + query);
    view.transactions.push(...transactions);
    view.next = next;
  }, fails(view));
}

async function readOutputs(view, isMore) {
  const after = isMore ? `&after=${encodeURIComponent(view.nextOutput)}` : "";
  const answer = await call("GET", `${path(subjectOf(view), "utxos")}?limit=${PAGE}${after}`);
  view.outputs = isMore ? [...view.outputs, ...answer.utxos] : answer.utxos;
  Object.assign(view, { nextOutput: answer.next, outputCount: answer.total });
  touch();
}

// ---- drawing

export function draw() {
  if (!shown) return;
  const view = shown;
  const { node, find } = view;
  const subject = subjectOf(view);
  if (view.gone && subjects.has(view.key)) Object.assign(view, { gone: false, version: -1 });
  node.classList.toggle("absent", Boolean(view.gone));
  setText(node, "#detail-title", subject.label || nameOf(view.key));
  setText(node, ".text code", isWallet(view) ? (subject.descriptor ?? "") : view.key);
  setText(node, ".value", amount(subject.balance));
  setText(node, ".total .unit", unit());
  setText(node, ".confirmed", amount(subject.confirmed_balance));
  setText(node, ".unconfirmed", amount(subject.unconfirmed_balance, true));
  setText(node, ".immature", amount(subject.immature));
  find(".fresh-mined").hidden = !subject.immature;
  node.dataset.key = view.key;
  node.classList.toggle("partial", subject.coverage?.utxos_complete === false);
  setText(node, ".coverage", view.error || coverageWords(subject));
  for (const [selector, scope] of [[".remove", "watch"], [".edit", "watch"], [".audit", "admin"]]) {
    bar(find(selector), !login.may(scope), selector === ".audit" && Boolean(view.auditing));
  }
  if (isReading(subject) && now() - view.at > 2) Object.assign(view, { version: -1 });
  if (subjects.has(view.key)) {
    if (view.version === -1) subject.stale = true;
    freshenShown([subject]);
  }
  if (!view.gone && isConnected()) refresh(view, subject);
  drawChart(view, subject);
  drawTransactions(view);
  drawOutputs(view);
  drawReceive(find(".receive"), view, subject);
  drawScan(find(".scan"), view, subject, () => Object.assign(view, { version: -1 }));
  drawParts(find(".parts"), view);
}

function coverageWords({ coverage, balance }) {
  if (balance === undefined) return "";
  if (coverage?.note) return coverage.note;
  if (coverage?.pending && coverage.utxos_complete) return "Reading its history; the balance is complete.";
  if (coverage?.pending) return "Looking for earlier payments; the balance is not complete yet.";
  return coverage?.utxos_complete === false ? "Counts only payments since the daemon began to watch it." : "";
}

function drawChart({ find, transactions }, { balance }) {
  const latest = transactions[0];
  redraw(find(".chart"), [balance, transactions.length, latest?.txid, latest?.status, amount(1)], () => {
    const time = now();
    const points = steps(transactions, balance, time);
    // There is nothing to see in fewer than two changes.
    if (points.length < 3 || balance === undefined) return [];
    const since = `since ${clock(points[0][0])}`;
    return [chart(points, time, `Balance ${since}, now ${amountUnit(balance)}`), make("p.quiet", since)];
  });
}

function drawTransactions({ node, find, transactions, next, count }) {
  setText(node, ".tx-count", count ?? "");
  find(".older-tx").hidden = !next;
  const shown = [count, transactions.map((tx) => [tx.txid, tx.status, tx.net]), state.tip?.height, amount(1), Math.floor(now() / 30)];
  const rows = () => (count === 0 ? [make("li.quiet", "None is known.")] : transactions.map(transactionRow));
  redraw(find(".transactions"), shown, rows);
}

function transactionRow(tx) {
  const { words, look } = standing(tx, state.tip);
  const time = make("time");
  drawTime(time, { ...tx, time: tx.first_seen });
  const id = make("code", short(tx.txid), { title: tx.txid });
  const row = make(isGone(tx) ? "li.gone" : "li", make("span.amount", amount(tx.net, true)), time, make("span.status", words), id);
  Object.assign(row.dataset, { txid: tx.txid, look });
  return row;
}

function drawOutputs({ node, find, outputs, outputCount, nextOutput }) {
  setText(node, ".out-count", outputCount ?? "");
  find(".more-out").hidden = !nextOutput;
  redraw(find(".outputs"), [outputs, amount(1)], () => outputs.map((output) => {
    const where = output.confirmed ? `block ${output.block_height}` : "unconfirmed";
    const state = output.coinbase && !output.mature ? `${where}, not spendable yet` : where;
    const id = make("code", `${short(output.tx_hash)}:${output.output_index}`, { title: output.tx_hash });
    return make("li", make("span.amount", amount(output.value)), make("span.status", state), id);
  }));
}

// ---- label, removal, audit

const itsPath = (view) => `${isWallet(view) ? "descriptors" : "addresses"}/${encodeURIComponent(view.key)}`;

function editLabel(view) {
  const form = view.find(".label-form");
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
    if (subjects.has(view.key)) put(view.kind, view.key, { label });
    else view.own = { ...subjectOf(view), label };
    view.error = "";
  };
  await login.attempt(save, fails(view));
  event.target.hidden = true;
  view.find(".edit").focus();
}

async function remove(view) {
  const what = isWallet(view) ? "wallet, with its addresses" : "address";
  const name = nameOf(view.key);
  if (!(await confirmed(`Stop watching ${name}?`, `satwatch forgets this ${what}, and what it knows of it. Payments to it are not told any more.`, "Stop watching"))) return;
  const act = async () => {
    await call("DELETE", itsPath(view), undefined, { seconds: 60 });
    forget(view.key);
    location.hash = "#/watching";
  };
  await login.attempt(act, fails(view));
}

async function audit(view) {
  const said = (words) => setText(view.node, ".audit-note", words);
  view.auditing = true;
  said("Asking the node; on the main chain that takes minutes.");
  touch();
  const ask = async () => {
    const answer = await call("POST", `audit/${isWallet(view) ? "descriptors/" : ""}${encodeURIComponent(view.key)}`, undefined, { seconds: 3_600 });
    const { missing, extra, different, ours, block } = answer;
    const wrong = [[missing, "missing here"], [extra, "too much here"], [different, "different"]];
    const found = wrong.filter(([list]) => list.length > 0).map(([list, words]) => `${list.length} ${words}`);
    said(answer.agrees ? `Agrees with the node at block ${block.height}: ${count(ours.count, "output")}, ${btc(ours.total)} BTC.` : `Does not agree with the node at block ${block.height}: ${found.join(", ")}.`);
  };
  await login.attempt(ask, said);
  view.auditing = false;
  touch();
}

