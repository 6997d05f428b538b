// How the page writes amounts, states and times.

import { prefs } from "./prefs.js";

const THIN = "\u202f"; // Between groups of digits; it neither breaks nor stretches.
const grouped = (digits) => digits.replace(/\B(?=(\d{3})+$)/g, THIN);

/// Satoshi as BTC, exactly: no floating-point number is ever involved. A dash for what is not a
/// whole number.
export function btc(satoshi, signed = false) {
  if (!Number.isSafeInteger(satoshi)) return "–";
  const digits = String(Math.abs(satoshi)).padStart(9, "0");
  const [whole, part] = [digits.slice(0, -8), digits.slice(-8)];
  return `${sign(satoshi, signed)}${grouped(whole)}.${part.slice(0, 3)}${THIN}${part.slice(3, 6)}${THIN}${part.slice(6)}`;
}

const sign = (satoshi, signed) => (satoshi < 0 ? "−" : signed && satoshi > 0 ? "+" : "");

/// An amount in the unit that the person chose, or dots while amounts are hidden.
export function amount(satoshi, signed = false) {
  if (!Number.isSafeInteger(satoshi)) return "–";
  if (prefs.hidden) return "••••";
  return prefs.unit === "sat" ? sign(satoshi, signed) + grouped(String(Math.abs(satoshi))) : btc(satoshi, signed);
}

/// Without zeros at the end, where there is little room.
export const brief = (satoshi, signed) => amount(satoshi, signed).replace(/\.?[0\u202f]+$/, (end, at, text) => (text.slice(0, at + 1).includes(".") ? "" : end));
export const unit = () => (prefs.unit === "sat" ? "sat" : "BTC");
export const amountUnit = (satoshi, signed) => `${amount(satoshi, signed)} ${unit()}`;

/// What a person typed, in their unit, as satoshi; null for what is no amount.
export function satoshiOf(text) {
  const clean = text.replace(/[\s_']/g, "").replace(",", ".");
  if (prefs.unit === "sat") return /^\d{1,16}$/.test(clean) ? Number(clean) : null;
  const [, whole, part = ""] = /^(\d{1,8})(?:\.(\d{1,8}))?$/.exec(clean) ?? [];
  return whole === undefined ? null : Number(whole + part.padEnd(8, "0"));
}

/// Satoshi as a BIP 21 link has them.
export function plainBtc(satoshi) {
  const digits = String(satoshi).padStart(9, "0");
  return `${digits.slice(0, -8)}.${digits.slice(-8)}`.replace(/\.?0+$/, "");
}

/// It moves no coins any more.
export const isGone = (tx) => ["replaced", "conflicted", "evicted"].includes(tx.status);

/// How a payment stands: words, how many of six bars are full, and what the row looks like.
export function standing(tx, tip) {
  if (tx.status === "confirmed") {
    const depth = Math.max(1, tx.block_height && tip ? tip.height - tx.block_height + 1 : (tx.confirmations ?? 1));
    return depth < 6 ? { words: `${depth} of 6 confirmations`, bars: depth, look: "young" } : { words: "confirmed", bars: 6, look: "done" };
  }
  if (tx.status === "mempool") {
    if (tx.previous === "confirmed") return { words: "back in the mempool, its block was undone", bars: 0, look: "back" };
    if (tx.previous && tx.previous !== "mempool") return { words: "back in the mempool", bars: 0, look: "back" };
    return { words: tx.replaceable ? "seen, can still be replaced" : "seen, not in a block yet", bars: 0, look: "seen" };
  }
  const words = {
    replaced: `replaced${tx.replaced_by ? ` by ${short(tx.replaced_by)}` : ""}`,
    conflicted: "cancelled, a block spends the same coins",
    evicted: "dropped by the node",
  };
  return { words: words[tx.status] ?? String(tx.status ?? ""), bars: 0, look: "gone" };
}

/// By the sign of an amount: a name, an arrow, a word.
export const direction = (net) => (net > 0 ? ["in", "↓", "Received"] : net < 0 ? ["out", "↑", "Sent"] : ["self", "↻", "Moved"]);

export function ago(seconds) {
  if (seconds < 60) return "just now";
  return `${span(seconds)} ago`;
}

export function span(seconds) {
  if (seconds < 60) return `${Math.max(0, Math.round(seconds))} s`;
  if (seconds < 7200) return `${Math.floor(seconds / 60)} min`;
  return seconds < 172_800 ? `${Math.floor(seconds / 3600)} h` : `${Math.floor(seconds / 86_400)} days`;
}

export const count = (number, one, many = `${one}s`) => `${grouped(String(number))} ${number === 1 ? one : many}`;

export function clock(seconds) {
  const then = new Date(seconds * 1000);
  const today = then.toDateString() === new Date().toDateString();
  return (today ? "" : `${then.toLocaleDateString()} `) + then.toLocaleTimeString();
}

export const short = (text) => (text.length > 20 ? `${text.slice(0, 8)}…${text.slice(-6)}` : text);
export const now = () => Date.now() / 1000;
export const height = (number) => grouped(String(number));
