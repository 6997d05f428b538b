// Keeping ./state.js in line with the daemon: what is watched is listed, the log is replayed from
// where it was left and then followed, and what no event tells of is asked for again.
//
//     status ─► replay from the saved cursor ─► list ─► read on, for good
//
// The list is read after the replay, so that old balances do not roll past. What is listed may be
// newer than the next event; balances are absolute, and agree once the head is reached.

import * as alerts from "./alerts.js";
import * as away from "./away.js";
import { isConnected } from "./dom.js";
import * as log from "./log.js";
import * as login from "./login.js";
import { prefs } from "./prefs.js";
import { call } from "./rest.js";
import { read, stored, write } from "./session.js";
import { forget as unlist, freshen, isWallet, keyOf, nameOf, put, putPayment, path, state, subjects, takeTip, touch } from "./state.js";
import { trouble } from "./truth.js";
import { count, now } from "./words.js";

const STORAGE_KEY = stored("place");
const MOST_LISTED = 20_000;
const FILLED_FROM = 40;
const STATUS_SECONDS = 10;

let page; // What app.js does: {connected, leave}.
let cursor = null; // Up to where it was read.
let listing = null; // The promise of the list that is being read.
let listAgain = false;
let listDue = true; // Once what was missed is replayed.
let isReplayed = false;
let filled = false;
let asked = 0; // When the status was asked for.
let savedAt = 0;

// Browsers hold few connections to one host, so that of the tabs that nobody looks at, one waits.
const isWatched = () => !document.hidden || (alerts.leads && (prefs.sound || prefs.notify));

export function setUp(calls) {
  page = calls;
  const place = read(STORAGE_KEY);
  if (!place?.cursor) return;
  cursor = place.cursor;
  away.since(place.time);
}

/// Connects, or does so anew: nobody knows whether a connection has outlived a sleep.
export function begin() {
  log.start({ begin: greet, heard, lost, failed, isWatched });
}

/// What was shown stays.
export function end() {
  log.stop();
  if (cursor) away.since(now());
}

export function forget() {
  cursor = null;
  filled = false;
  write(STORAGE_KEY, null);
}

export function save() {
  if (!state.listed || !cursor) return;
  savedAt = Date.now();
  write(STORAGE_KEY, { cursor, time: now() });
}

export function tick() {
  if (Date.now() - savedAt > 5_000) save();
  if (document.hidden) return;
  if (now() - asked > (trouble(state.daemon) ? 3 : STATUS_SECONDS)) refreshStatus();
}

async function greet() {
  isReplayed = false;
  await readStatus();
  if (!cursor) listDue = true;
  return (cursor ??= state.daemon.cursor);
}

/// What goes wrong otherwise the truth line says already.
export const refreshStatus = () => readStatus().then(listIfDue).catch(login.seen);

async function readStatus() {
  asked = now();
  const before = state.tip;
  state.daemon = await call("GET", "status");
  state.daemonAt = now();
  if (state.tip === before) takeTip(state.daemon.tip);
  const { address_count: addresses, descriptor_count: wallets } = state.daemon;
  if (state.listed && (addresses !== state.total || wallets !== state.wallets)) listDue = true; // Somebody else added or removed some.
  touch();
}

// ---- the list

function listIfDue() {
  if (listDue && isReplayed && isConnected()) relist();
}

/// The whole list anew: what is gone from it goes, what is new comes.
export function relist() {
  listAgain = listing !== null;
  listing ??= readList().finally(() => {
    listing = null;
    if (listAgain) relist();
  });
  return listing;
}

async function readList() {
  listDue = false;
  try {
    const found = new Set();
    await pages("descriptors", "descriptor", found);
    const total = await pages("addresses", "address", found);
    for (const [key, { addedAt: mine }] of subjects) if (!found.has(key) && !(mine > now() - 5)) unlist(key);
    Object.assign(state, { total, listed: true });
    touch();
    if (!filled) await fill();
  } catch (error) {
    listDue = true;
    if (!login.seen(error)) setTimeout(listIfDue, 2_000);
  }
}

/// Resolves to how many there are.
async function pages(name, kind, found) {
  let after = "";
  let total;
  do {
    const page = await call("GET", `${name}?limit=1000${after}`);
    total ??= page.total;
    for (const data of page[name]) {
      const key = data[kind === "address" ? "address" : "descriptor_id"];
      found.add(key);
      put(kind, key, data);
    }
    touch();
    after = page.next && found.size < MOST_LISTED && `&after=${encodeURIComponent(page.next)}`;
  } while (after);
  return total;
}

/// Payments from before the page was open, of those where something happened last.
async function fill() {
  filled = true;
  const all = [...subjects.values()].sort((a, b) => b.added - a.added);
  const wallets = all.filter(isWallet);
  const recent = [...wallets, ...all.filter(({ transaction_count }) => transaction_count > 0)].slice(0, FILLED_FROM);
  while (recent.length > 0) await Promise.all(recent.splice(0, 3).map((subject) => readTransactions(subject)));
}

/// Its latest transactions into the feed. Answers that an event overtook are asked for again.
export async function readTransactions(subject, tries = 3) {
  const { version } = subject;
  const { transactions } = await call("GET", `${path(subject, "transactions")}?limit=20`).catch(() => ({ transactions: [] }));
  if (subjects.get(subject.key) !== subject) return;
  if (subject.version !== version) return tries > 1 && readTransactions(subject, tries - 1);
  const owners = subject.owners?.filter(({ descriptor_id }) => subjects.has(descriptor_id));
  const about = isWallet(subject) ? { descriptor_id: subject.key } : { address: subject.key, owners };
  for (const tx of transactions) putPayment(about, tx, false);
  touch();
}

// ---- events

const handlers = {
  new_transactions(data, news) {
    for (const tx of data.transactions) {
      const put = putPayment(data, tx, true, data.timestamp);
      if (!put) continue;
      news.push(put.payment);
      away.happened(put.payment.id);
    }
  },
  transaction_update(data, news) {
    const put = putPayment(data, data, false, data.first_seen);
    if (!put) return;
    // A deeper confirmation alone is nothing that a person has to be told of.
    const isDeeper = data.status === "confirmed" && data.previous_status === "confirmed";
    if (isDeeper) return;
    away.happened(put.payment.id);
    news.push({ ...put.payment, update: true });
  },
  balance_change(data) {
    const subject = subjects.get(keyOf(data));
    if (!subject) return;
    const { new_balance: balance, confirmed_balance, unconfirmed_balance } = data;
    Object.assign(subject, { balance, confirmed_balance, unconfirmed_balance });
  },
  scan_complete(data) {
    away.happened(`scan ${data.scan_id}`, `History of ${nameOf(keyOf(data))} ${data.to_height === null ? `known from block ${data.from_height}` : "read"}`);
    const subject = subjects.get(keyOf(data));
    if (subject) readTransactions(subject);
  },
  unwatched(data) {
    away.happened(`gone ${keyOf(data)}`, `${nameOf(keyOf(data))} is no longer watched`);
    unlist(keyOf(data));
  },
  label_change(data) {
    const subject = subjects.get(keyOf(data));
    if (subject) put(subject.kind, subject.key, { label: data.label });
    for (const { descriptor_id: id } of data.owners ?? []) if (subjects.has(id)) subjects.get(id).version += 1;
  },
  block(data) {
    takeTip({ height: data.height, hash: data.hash, time: data.time });
    state.daemonAt = 0; // The status is from before it.
    asked = Math.min(asked, now() - STATUS_SECONDS + 1);
    for (const subject of subjects.values()) if (subject.immature > 0) subject.stale = true;
  },
  reorg(data) {
    takeTip(data.tip);
    away.happened(`reorg ${data.cursor}`, `The chain was reorganised: ${count(data.depth, "block")} undone`);
    asked = 0;
  },
};

function heard(events, upTo, isCurrent) {
  cursor = upTo;
  page.connected();
  const news = [];
  let unknown = false;
  state.heard += events.length;
  for (const { event, data } of events) {
    const subject = subjects.get(keyOf(data));
    if (subject) {
      subject.version += 1;
      // No event tells how the balance is split, nor what is covered.
      if (event !== "label_change") subject.stale = true;
      // An address of a wallet is on the list only if it was added by itself.
    } else if (keyOf(data) && event !== "unwatched" && !data.owners) unknown = true;
    log.safely(() => handlers[event]?.(data, news));
  }
  if (news.length > 0) log.safely(() => alerts.tell(news));
  if (unknown && subjects.size < MOST_LISTED) listDue = true;
  isReplayed = isCurrent;
  if (isCurrent) away.caughtUp();
  listIfDue();
  touch();
}

/// The cursor is of no use any more (the store is another one, or what came after it was deleted):
/// begins anew, and says so.
function lost(error) {
  away.lost(error.message);
  cursor = null;
  filled = false;
}

/// Whether nobody may speak any more; everything else is tried again.
function failed(error) {
  if (login.seen(error)) return true;
  if (cursor) away.since(now());
  page.leave(`Reconnecting. ${error.message}`);
  return false;
}

/// Those of what is looked at that have to be asked for again.
export function freshenShown(shown) {
  if (isConnected()) for (const subject of shown) freshen(subject);
}
