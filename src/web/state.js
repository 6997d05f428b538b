// What the page knows: what is watched and how payments stand. Events and answers change it, and
// one `draw` a frame (./app.js) brings the document in line with it.

import { call } from "./rest.js";
import { now, short } from "./words.js";

const KEPT_PAYMENTS = 400;

/// By address or descriptor id: what the daemon says of it, with its {key, kind}, whether that is
/// `stale`, and how many events (`version`) have told of it.
export const subjects = new Map();
/// By subject and txid: one entry for each payment, which changes in place.
export const payments = new Map();
export const state = {
  daemon: {}, // The last GET /status, and when it came.
  daemonAt: 0,
  tip: null, // As {height, hash, time?}.
  total: 0, // Addresses on the list; more than are listed here, if it is very long.
  wallets: 0,
  heard: 0, // Events that came.
  listed: false,
  version: 0, // Of the list: grows when something is added, removed or named.
};

let changed = () => {};
export const onChange = (hear) => (changed = hear);
/// To be said whenever something that is drawn has changed.
export const touch = () => changed();

export const isWallet = (subject) => subject?.kind === "descriptor";
/// Where the daemon has its "balance", "transactions" or "utxos".
export const path = (subject, what) => (isWallet(subject) ? `descriptors/${subject.key}/${what}` : `${what}/${encodeURIComponent(subject.key)}`);
export const link = (subject) => `#/${isWallet(subject) ? "wallet" : "address"}/${subject.key}`;
/// The label, or what there is without one.
export function nameOf(key) {
  const subject = subjects.get(key);
  return subject?.label || (isWallet(subject) || /^[0-9a-f]{64}$/.test(key) ? `Wallet ${key.slice(0, 8)}` : short(key));
}
/// Its past is still being found out. What has a note stays as it is.
export const isReading = ({ coverage }) => coverage?.pending && !coverage.note;
export const keyOf = (data) => data.address ?? data.descriptor_id;

/// Takes over what a list or an answer says of something watched.
export function put(kind, key, data) {
  let subject = subjects.get(key);
  if (!subject) {
    subject = { label: "", added: 0, stale: kind === "descriptor", version: 0 };
    subjects.set(key, subject);
    state.version += 1;
    if (kind === "descriptor") state.wallets += 1;
  }
  if (data.label !== undefined && data.label !== subject.label) state.version += 1;
  return Object.assign(subject, data, { key, kind });
}

export function forget(key) {
  const subject = subjects.get(key);
  if (!subjects.delete(key)) return;
  state.version += 1;
  if (subject.kind === "address") state.total -= 1;
  else state.wallets -= 1;
  for (const [id, payment] of payments) if (payment.subject === key) payments.delete(id);
  touch();
}

export function clear() {
  subjects.clear();
  payments.clear();
  vias.clear();
  Object.assign(state, { daemon: {}, daemonAt: 0, tip: null, total: 0, wallets: 0, listed: false, version: state.version + 1 });
}

/// The same block again must not lose its time.
export function takeTip(block) {
  if (block && (block.hash !== state.tip?.hash || !state.tip?.time)) state.tip = block;
}

// ---- payments

const vias = new Map(); // Payment of a wallet -> the address that was added by itself, too.

/// An address that belongs to a wallet is told of as that wallet's payment. The events come before
/// the list, so the wallet need not be known yet.
function rowOf(data) {
  const owners = (data.address && data.owners) || [];
  const owner = owners.find(({ descriptor_id }) => subjects.has(descriptor_id)) ?? owners[0];
  return { subject: owner ? owner.descriptor_id : keyOf(data), via: owner ? data.address : null };
}

/// What one transaction means for what `data` is about. `fresh`: it is news.
export function putPayment(data, tx, fresh, time) {
  const { subject, via } = rowOf(data);
  const id = `${subject}|${tx.txid}`;
  if (via) {
    vias.set(id, via);
    if (vias.size > KEPT_PAYMENTS) vias.delete(vias.keys().next().value);
    const payment = payments.get(id);
    if (payment) payment.via = via;
    return null;
  }
  let payment = payments.get(id);
  const isNew = !payment;
  if (isNew) {
    const seen = tx.status === "confirmed" ? Math.min(tx.block_time || Infinity, tx.first_seen || Infinity) : tx.first_seen;
    payment = { id, subject, txid: tx.txid, time: Math.min(time ?? Infinity, seen || Infinity), via: vias.get(id) ?? null };
    if (!Number.isFinite(payment.time)) payment.time = now();
    payments.set(id, payment);
  }
  const before = payment.status;
  for (const name of ["status", "net", "received", "sent", "block_height", "block_time", "replaceable", "replaced_by", "confirmations"]) {
    if (name in tx) payment[name] = tx[name];
  }
  if ("previous_status" in tx) payment.previous = tx.previous_status;
  else if (before && before !== tx.status) payment.previous = before;
  payment.fresh ||= fresh && isNew;
  if (payments.size > KEPT_PAYMENTS + 100) dropOldest();
  return { payment, isNew, before };
}

function dropOldest() {
  for (const payment of newest().slice(KEPT_PAYMENTS)) payments.delete(payment.id);
}

/// Newest first.
export const newest = () => [...payments.values()].sort((a, b) => b.time - a.time);

// ---- asking again

const asking = new Set();

/// Balance and coverage of what has changed in a way that no event describes whole. What is not
/// looked at can wait until it is.
export async function freshen(subject) {
  if (!subject.stale || asking.has(subject.key) || asking.size >= 4) return;
  asking.add(subject.key);
  const { version } = subject;
  subject.stale = false;
  try {
    const answer = await call("GET", path(subject, "balance"));
    if (subjects.get(subject.key) !== subject) return;
    // An event overtook the answer, which may be older than what is shown by now.
    if (subject.version === version) put(subject.kind, subject.key, answer);
    else subject.stale = true;
  } catch (error) {
    if (error.status === 404) forget(subject.key);
    else subject.stale = error.code !== "unauthorized";
  } finally {
    asking.delete(subject.key);
  }
  touch();
}
