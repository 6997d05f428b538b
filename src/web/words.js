// How the page writes amounts, states and times.

/// Satoshi as BTC, exactly: no floating-point number is ever involved. A dash for what is not a whole number.
export function btc(satoshi, signed = false) {
  if (!Number.isSafeInteger(satoshi)) return "–";
  const amount = BigInt(satoshi);
  const digits = String(amount < 0n ? -amount : amount).padStart(9, "0");
  const sign = amount < 0n ? "−" : signed && amount > 0n ? "+" : "";
  return `${sign}${digits.slice(0, -8)}.${digits.slice(-8)}`;
}

/// How a transaction stands now.
export function statusWords({ status, block_height: height }) {
  if (status === "confirmed") return height == null ? "confirmed" : `in block ${height}`;
  const words = { mempool: "unconfirmed", replaced: "replaced", conflicted: "in conflict with a block", evicted: "dropped by the node" };
  return words[status] ?? String(status ?? "");
}

/// It moves no coins any more.
export const isGone = (tx) => ["replaced", "conflicted", "evicted"].includes(tx.status);

/// What happened to it: title and explanation.
export function updateWords(update) {
  const count = update.confirmations > 1 ? `, ${update.confirmations} confirmations` : "";
  // What the previous status makes of "mempool"; the same one says that the amounts are new.
  const unconfirmed = {
    mempool: ["Amount corrected", "more of it concerns this address"],
    confirmed: ["Unconfirmed again", "its block was undone"],
  };
  const words = {
    confirmed: ["Confirmed", statusWords(update) + count],
    mempool: unconfirmed[update.previous_status] ?? ["Unconfirmed again", "it is back in the mempool"],
    replaced: ["Replaced", update.replaced_by ? `by ${short(update.replaced_by)}` : ""],
    conflicted: ["Cancelled", "a block spends the same coins"],
    evicted: ["Dropped", "no longer in the node's mempool"],
  };
  return words[update.status] ?? ["Changed", statusWords(update)];
}

/// What, in the answer of GET /status, keeps payments from being seen, if anything.
export function trouble(daemon) {
  if (daemon.realtime_monitoring === false) return "Monitoring is stopped: payments are not seen until it starts again.";
  if (daemon.service_available === false) return "The Bitcoin node does not answer: balances are as of the block above, new payments are not seen.";
  if (daemon.following === false) return `Not up to date with the Bitcoin node. ${daemon.not_following_because ?? ""}`;
  return "";
}

export function ago(seconds) {
  if (seconds < 60) return "just now";
  if (seconds < 7200) return `${Math.floor(seconds / 60)} min ago`;
  return seconds < 172_800 ? `${Math.floor(seconds / 3600)} h ago` : `${Math.floor(seconds / 86_400)} days ago`;
}

export function clock(seconds) {
  const then = new Date(seconds * 1000);
  const today = then.toDateString() === new Date().toDateString();
  return (today ? "" : `${then.toLocaleDateString()} `) + then.toLocaleTimeString();
}

export const short = (hash) => `${hash.slice(0, 8)}…${hash.slice(-8)}`;
