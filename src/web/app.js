// The page: addresses (remembered in localStorage), their balances, and a feed of what happens to them.
//
// State first, drawing second: events change `watched` and `feed`, and one `draw` a frame brings the document in line.
// Amounts stay integers in satoshi until `btc` writes them. Text from outside goes through textContent only.

import { arrange, copyOf, setText } from "./dom.js";
import * as login from "./login.js";
import { call, here } from "./rest.js";
import { stored } from "./session.js";
import { Socket } from "./socket.js";
import { ago, btc, clock, isGone, short, statusWords, trouble, updateWords } from "./words.js";

const FEED_LENGTH = 200;
const SHOWN_AT_ONCE = 50;
const HISTORY_LENGTH = 10;
const REMEMBERED_TXIDS = 1000;
const STORAGE_KEY = stored("addresses");

const element = (id) => document.getElementById(id);
const watched = new Map(); // address -> {address, label, balance, coverage, cursor, error, known, asking, node}
const feed = []; // newest first: {time, kind, address, txid, title, status, gone, amount, tone, fresh, node}
let daemon = {}; // the last GET /status
let tip = null; // {height, hash, time?}
let complaint = ""; // the last `error` event
let unseen = 0; // payments since the page was last looked at
let upTo = 0; // when the connection was last there, in seconds
let drawing = false;
let adding = false;

const nameOf = (address) => watched.get(address)?.label || address;

// ---- talking to the daemon

const socket = new Socket(new URL("socket.io/", here), login.payload, onConnection);

function onConnection(state, words) {
  document.body.dataset.connection = state;
  if (state === "connected") {
    setText(document, "#connection", `Connected ${words}`.trim());
    upTo = Infinity;
    complaint = "";
    login.connected();
    socket.emit("subscribe_blocks", {});
    for (const entry of watched.values()) join(entry);
    refreshStatus();
  } else if (state === "waiting") {
    upTo = Math.min(upTo, Date.now() / 1000);
    setText(document, "#connection", `Reconnecting. ${words}${upTo ? ` What you see is from ${clock(upTo)}.` : ""}`);
  } else if (state === "unauthorized") {
    login.refused();
  }
  schedule();
}

login.begin({
  changed: schedule,
  connect: () => socket.connect(),
  /// Nothing comes while nobody is logged in; what was shown stays for whoever logs in again, unless it was left on purpose.
  leave(forgetting) {
    socket.close();
    document.body.dataset.connection = "waiting";
    setText(document, "#connection", "Not logged in");
    upTo = Math.min(upTo, Date.now() / 1000);
    if (!forgetting) return;
    watched.clear();
    feed.length = 0;
    [daemon, tip, complaint, unseen, upTo] = [{}, null, "", 0, 0];
    restore();
    nameTab();
  },
});

/// Subscribes on a new connection: with what was missed since the last one, if any.
function join(entry) {
  subscribe(entry, entry.cursor, () => readHistory(entry));
}

/// Subscribing again is also how the page gets a balance that fits the events around it. `after` is for a new connection only:
/// on the same one it would bring what is under way a second time.
function subscribe(entry, after, andThen) {
  socket.emit("subscribe_address", { address: entry.address, ...(after && { after }) }, (reply) => {
    if (watched.get(entry.address) !== entry || reply.code === "disconnected") return;
    if (after && !reply.balance && /^cursor_/.test(reply.code)) return subscribe(entry, null, andThen);
    entry.error = reply.balance ? "" : (reply.error ?? "");
    if (reply.error === complaint) complaint = ""; // It came as an event, too; it is said at the address.
    entry.cursor = reply.cursor ?? entry.cursor;
    if (reply.balance) Object.assign(entry, { balance: reply.balance, coverage: reply.balance.coverage });
    if (!entry.error) andThen?.();
    schedule();
  });
}

/// Latest transactions for the feed: what came before the page was opened, or while it was not connected.
async function readHistory(entry, tries = 3) {
  const { cursor } = entry;
  const path = `transactions/${encodeURIComponent(entry.address)}?limit=${HISTORY_LENGTH}`;
  const { transactions } = await call("GET", path).catch(() => ({ transactions: [] }));
  if (watched.get(entry.address) !== entry) return;
  // An event overtook the answer, which may be older than what the feed says by now.
  if (entry.cursor !== cursor) return tries > 1 && readHistory(entry, tries - 1);
  addTransactions(entry, transactions, false);
}

async function refreshStatus() {
  const before = tip;
  try {
    daemon = await call("GET", "status");
  } catch (error) {
    return login.seen(error); // Anything else the connection state says already.
  }
  if (tip === before) takeTip(daemon.tip);
  schedule();
}

/// The same block again must not lose its time.
function takeTip(block) {
  if (block && (block.hash !== tip?.hash || !tip.time)) tip = block;
}

/// Balance and coverage again, soon: for changes that no event describes whole. Several at once are one question.
function refresh(entry) {
  if (entry.asking) return;
  entry.asking = setTimeout(() => {
    entry.asking = null;
    if (watched.get(entry.address) === entry) subscribe(entry);
  }, 50);
}

// ---- events

/// Registers a handler for an event about one address; those about an address removed here are ignored.
function onAddress(name, handler) {
  socket.on(name, (data) => {
    const entry = watched.get(data.address);
    if (!entry) return;
    entry.cursor = data.cursor ?? entry.cursor;
    handler(entry, data);
    schedule();
  });
}

socket.on("connected", (data) => {
  daemon.network = data.network ?? daemon.network;
  takeTip(data.tip);
  schedule();
});

onAddress("balance_change", (entry, data) => {
  const { new_balance: balance, confirmed_balance, unconfirmed_balance } = data;
  entry.balance = { ...entry.balance, balance, confirmed_balance, unconfirmed_balance };
  const found = data.cause?.kind === "baseline";
  if (found || data.cause?.kind === "block") refresh(entry); // Its coverage changed, or coins were mined to it.
  const status = `${btc(data.old_balance)} → ${btc(balance)}`;
  tell({ time: data.timestamp, kind: "balance", address: entry.address, title: found ? "Earlier balance found" : "Balance", status });
});

onAddress("new_transactions", (entry, data) => addTransactions(entry, data.transactions, true, data.timestamp));

onAddress("transaction_update", (entry, data) => {
  refresh(entry); // Confirmed and unconfirmed changed, the sum perhaps not.
  restate(entry, data);
  const [title, status] = updateWords(data);
  const tone = data.status === "confirmed" ? "" : "warn";
  tell({ time: data.timestamp, kind: "update", address: entry.address, txid: data.txid, title, status, tone });
});

onAddress("scan_complete", (entry, data) => {
  refresh(entry); // Its coverage changed.
  readHistory(entry);
  const status = `from block ${data.from_height} on`;
  tell({ time: data.timestamp, kind: "update", address: entry.address, title: "History read", status });
});

/// Not shown any more either: to ask for its balance would put it on the daemon's list again.
onAddress("unwatched", (entry, data) => {
  tell({ time: data.timestamp, kind: "update", title: "No longer watched", status: entry.address });
  forget(entry);
  save();
});

socket.on("block", (data) => {
  tip = { height: data.height, hash: data.hash, time: data.time };
  tell({ time: data.timestamp, kind: "block", title: `Block ${data.height}`, status: short(String(data.hash)) });
  for (const entry of watched.values()) if (entry.balance?.immature > 0) refresh(entry);
});

socket.on("reorg", (data) => {
  takeTip(data.tip);
  refreshStatus(); // It knows the time of the tip.
  const status = `${data.depth === 1 ? "the last block was" : `${data.depth} blocks were`} undone`;
  tell({ time: data.timestamp, kind: "block", title: "Reorganisation", status, tone: "warn" });
});

socket.on("error", (data) => {
  if (data?.code === "unauthorized") return; // The session ends; what that means is found out by connecting again.
  complaint = String(data?.error ?? "satwatch reported an error without words.");
  schedule();
});

function addTransactions(entry, transactions, fresh, timestamp) {
  for (const tx of [...transactions].reverse()) {
    if (entry.known.has(tx.txid)) {
      restate(entry, tx);
      continue;
    }
    entry.known.add(tx.txid);
    if (entry.known.size > REMEMBERED_TXIDS) entry.known.delete(entry.known.values().next().value);
    const title = tx.net > 0 ? "Received" : tx.net < 0 ? "Sent" : "Moved";
    const [kind, tone] = tx.net > 0 ? ["received", "good"] : ["sent", ""];
    const time = timestamp ?? tx.first_seen ?? tx.block_time;
    tell({ time, kind, address: entry.address, txid: tx.txid, title, status: statusWords(tx), gone: isGone(tx), amount: tx.net, tone, fresh });
    if (fresh && document.hidden) unseen += 1;
  }
  nameTab();
}

function tell(row) {
  if (!Number.isFinite(row.time)) row.time = Date.now() / 1000;
  const place = feed.findIndex((other) => other.time <= row.time);
  feed.splice(place < 0 ? feed.length : place, 0, row);
  feed.length = Math.min(feed.length, FEED_LENGTH);
  schedule();
}

/// The row of a transaction keeps saying how it stands now.
function restate(entry, tx) {
  const row = feed.find((row) => row.txid === tx.txid && row.address === entry.address && row.kind !== "update");
  if (row) Object.assign(row, { status: statusWords(tx), gone: isGone(tx) });
  schedule();
}

// ---- drawing

function schedule() {
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(() => {
    drawing = false;
    draw();
  });
}

function draw() {
  drawChain();
  drawNotice();
  drawAllowed();
  const entries = [...watched.values()];
  arrange(element("addresses"), entries, makeAddress, drawAddress);
  arrange(element("feed"), feed, makeFeedRow, drawFeedRow);
  element("no-addresses").hidden = entries.length > 0;
  element("no-events").hidden = feed.length > 0;
  const known = daemon.watched_addresses ?? [];
  const count = Math.min(known.length, SHOWN_AT_ONCE);
  element("show-known").hidden = count === 0;
  element("show-known").textContent = count === 1 ? "Show the address the daemon watches" : `Show ${count} addresses the daemon watches`;
}

function drawChain() {
  element("network").textContent = daemon.network ?? "–";
  element("height").textContent = tip?.height ?? "–";
  element("hash").textContent = tip?.hash ? short(tip.hash) : "–";
  element("hash").title = tip?.hash ?? "";
  element("age").textContent = tip?.time ? ago(Date.now() / 1000 - tip.time) : "–";
}

function drawNotice() {
  const stopped = daemon.realtime_monitoring === false;
  const words = [complaint, trouble(daemon), stopped && login.whyNot("admin", "starting it")].filter(Boolean).join(" ");
  setText(document, "#notice-text", words);
  element("notice").hidden = document.body.dataset.connection !== "connected" || words === "";
  element("start").hidden = !stopped;
  bar(element("start"), !login.may("admin"));
}

function drawAllowed() {
  const barred = !login.may("watch");
  setText(document, "#add-why", login.whyNot("watch", "adding addresses"));
  element("add-hint").hidden = barred;
  for (const id of ["address", "label", "watch"]) bar(element(id), barred, id === "watch" && adding);
}

/// Disables what the token may not do.
function bar(control, barred, busy = false) {
  control.classList.toggle("barred", barred);
  control.disabled = barred || busy;
}

function makeAddress(entry) {
  const node = copyOf("address-row");
  node.dataset.address = entry.address;
  node.querySelector(".remove").addEventListener("click", () => remove(entry));
  return node;
}

function drawAddress(entry) {
  const { node, balance, coverage } = entry;
  setText(node, ".label", entry.label);
  setText(node, ".text", entry.address);
  setText(node, ".value", btc(balance?.balance));
  setText(node, ".confirmed", btc(balance?.confirmed_balance));
  setText(node, ".unconfirmed", btc(balance?.unconfirmed_balance, true));
  node.querySelector(".remove").setAttribute("aria-label", `Remove ${nameOf(entry.address)} from this page`);
  let note = "";
  if (entry.error) note = entry.error;
  else if (coverage?.pending && coverage.utxos_complete) note = "Reading its history; the balance is complete.";
  else if (coverage?.pending) note = "Looking for earlier payments; the balance is not complete yet.";
  else if (coverage?.utxos_complete === false) note = "Counts only payments since the daemon began to watch it.";
  else if (balance?.immature > 0) note = `${btc(balance.immature)} BTC of it is freshly mined and cannot be spent yet.`;
  setText(node, ".note", note);
  node.classList.toggle("failed", Boolean(entry.error));
  node.classList.toggle("partial", coverage?.utxos_complete === false);
}

function makeFeedRow(row) {
  const node = copyOf("feed-row");
  Object.assign(node.dataset, { kind: row.kind, tone: row.tone ?? "", address: row.address ?? "", txid: row.txid ?? "" });
  node.classList.toggle("fresh", Boolean(row.fresh));
  const time = node.querySelector("time");
  time.dateTime = new Date(row.time * 1000).toISOString();
  time.textContent = clock(row.time);
  setText(node, ".title", row.title);
  setText(node, ".whose", row.address ? nameOf(row.address) : "");
  setText(node, ".id", row.txid ?? "");
  setText(node, ".amount", row.amount === undefined ? "" : `${btc(row.amount, true)} BTC`);
  return node;
}

function drawFeedRow({ node, status, gone }) {
  setText(node, ".status", status);
  node.classList.toggle("gone", Boolean(gone));
}

function nameTab() {
  if (!document.hidden) unseen = 0;
  document.title = unseen ? `(${unseen}) satwatch` : "satwatch";
}

// ---- what the person does

function watch(address, label = "") {
  const entry = { address, label, balance: null, coverage: null, cursor: null, error: "", known: new Set(), asking: null, node: null };
  watched.set(address, entry);
  if (document.body.dataset.connection === "connected") join(entry);
  schedule();
}

async function add(event) {
  event.preventDefault();
  const field = element("address");
  const label = element("label").value.trim();
  const failed = (words) => {
    element("add-error").textContent = words;
    field.setAttribute("aria-invalid", String(words !== ""));
    if (words) field.focus();
  };
  if (!field.value.trim()) return failed("Enter the address to watch.");
  adding = true;
  drawAllowed();
  try {
    // The answer has the address as the daemon writes it in events.
    const { address } = await call("POST", "add_address", { address: field.value.trim(), ...(label && { label }) });
    const entry = watched.get(address);
    if (entry && !label) throw new Error("This address is here already.");
    if (entry) entry.label = label;
    else watch(address, label);
    save();
    event.target.reset();
    complaint = "";
    failed("");
    field.focus();
    schedule();
  } catch (error) {
    login.seen(error);
    failed(error.message);
  } finally {
    adding = false;
    drawAllowed();
  }
}

function remove(entry) {
  const next = entry.node.nextElementSibling ?? entry.node.previousElementSibling;
  (next?.querySelector(".remove") ?? element("address")).focus();
  forget(entry);
  save();
}

function forget(entry) {
  socket.emit("unsubscribe_address", { address: entry.address });
  watched.delete(entry.address);
  schedule();
}

function save() {
  const list = [...watched.values()].map(({ address, label }) => ({ address, label }));
  try {
    localStorage.setItem(STORAGE_KEY, JSON.stringify(list));
  } catch {
    // Storage is refused (private window): the page works, it only forgets.
  }
}

/// Takes over what is stored: at the start, and when another tab changed it.
function restore() {
  let list = [];
  try {
    list = JSON.parse(localStorage.getItem(STORAGE_KEY)) ?? [];
  } catch {
    // Refused or damaged: as if empty.
  }
  const stored = new Map((Array.isArray(list) ? list : []).map((item) => [item?.address, item?.label]));
  for (const [address, label] of stored) {
    if (typeof address === "string" && !watched.has(address)) watch(address, String(label ?? ""));
  }
  for (const entry of watched.values()) if (!stored.has(entry.address)) forget(entry);
  schedule();
}

function showKnown() {
  for (const address of (daemon.watched_addresses ?? []).slice(0, SHOWN_AT_ONCE)) if (!watched.has(address)) watch(address);
  save();
  element("address").focus();
}

function startMonitoring() {
  const failed = (error) => {
    login.seen(error);
    complaint = error.message;
  };
  call("POST", "start").catch(failed).then(refreshStatus).then(schedule);
}

element("add").addEventListener("submit", add);
element("show-known").addEventListener("click", showKnown);
element("start").addEventListener("click", startMonitoring);
addEventListener("storage", (event) => event.key === STORAGE_KEY && restore());
addEventListener("online", connect);
document.addEventListener("visibilitychange", () => {
  nameTab();
  if (!document.hidden) connect();
});

/// Does nothing while the page waits for somebody to log in.
function connect() {
  if (!login.isWanted()) socket.connect();
}

/// While connected, every so often, asks again for the entries that need it.
function recheck(milliseconds, needs, also) {
  setInterval(() => {
    if (document.body.dataset.connection === "connected") {
      for (const entry of watched.values()) if (needs(entry)) subscribe(entry);
      also?.();
    }
    schedule(); // Ages grow.
  }, milliseconds);
}

recheck(3_000, (entry) => entry.coverage?.pending, () => trouble(daemon) && refreshStatus());
recheck(20_000, (entry) => entry.error, refreshStatus);
restore();
socket.connect();
