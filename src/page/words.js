// How the page writes amounts, states and times.

/// Satoshi as BTC, exactly: no floating-point number is ever involved. A dash for what is not a whole number.
export function btc(satoshi, signed = false) {
  if (!Number.isSafeInteger(satoshi)) return "–";
  const amount = BigInt(satoshi);
  const digits = String(amount < 0n ? -amount : amount).padStart(9, "0");
  const sign = amount < 0n ? "−" : signed && amount > 0n ? "+" : "";
  return `${sign}${digits.slice(0, -8)}.${digits.slice(-8)}`;
}

export function statusWords(tx) {
  if (tx.status === "confirmed") {
    const where = tx.block_height == null ? "confirmed" : `in block ${tx.block_height}`;
    return tx.confirmations > 1 ? `${where}, ${tx.confirmations} confirmations` : where;
  }
  const words = { mempool: "unconfirmed", replaced: "replaced", conflicted: "in conflict with a block", evicted: "dropped by the node" };
  return words[tx.status] ?? String(tx.status ?? "");
}

export function updateTitle(update) {
  if (update.status === "confirmed") return "Confirmed";
  if (update.status === "mempool") return update.previous_status === "confirmed" ? "Unconfirmed again" : "Back in the mempool";
  return { replaced: "Replaced", conflicted: "Cancelled", evicted: "Dropped" }[update.status] ?? "Changed";
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
