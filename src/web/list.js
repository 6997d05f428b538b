// What is watched: the daemon's own list, wallets first, each with its sum. One field searches and
// adds. Only rows that can be seen are in the document, so that ten thousand cost what twenty do.

import { bar, copyOf, element, mark, say, setText, show } from "./dom.js";
import * as login from "./login.js";
import { call } from "./rest.js";
import { isReading, isWallet, link, nameOf, put, state, subjects, touch } from "./state.js";
import { freshenShown } from "./sync.js";
import { amount, brief, count, now, short } from "./words.js";

const ROW_PX = 56;
const SPARE = 6;

let sorted = [];
let sortedFor = "";
let search = "";
let adding = false;
const place = element("list-window");
const nodes = new Map(); // Row by key, of those in the document.

/// What may be an address, a link or a descriptor, rather than a word to search for.
const isAddable = (text) => /^bitcoin:|[(]|^[a-z0-9\u200b-\u200f\u2060\ufeff]{20,}/i.test(text.trim());
const isDescriptor = (text) => /[(]|^[xyztuv]pub/i.test(text.trim());

export function begin() {
  element("add").onsubmit = add;
  element("address").oninput = ({ target }) => {
    search = target.value.trim().toLowerCase();
    failed("");
    place.scrollTop = 0;
    touch();
  };
  place.onscroll = touch;
  place.onkeydown = move;
  new ResizeObserver(touch).observe(place);
}

/// Those that match what is searched for: wallets, then addresses with a label, then the newest.
function sort() {
  const now = `${state.version} ${search}`;
  if (now === sortedFor) return sorted;
  sortedFor = now;
  const has = ({ key, label, descriptor = "" }) => [label, key, descriptor].some((text) => text.toLowerCase().includes(search));
  const rank = (subject) => (isWallet(subject) ? 0 : subject.label ? 1 : 2);
  sorted = [...subjects.values()].filter(has);
  sorted.sort((a, b) => rank(a) - rank(b) || (a.label < b.label ? -1 : a.label > b.label ? 1 : b.added - a.added));
  return sorted;
}

export function draw() {
  drawForm();
  const rows = sort();
  say("watched-count", state.listed ? counted(state) : "");
  say("list-note", noteOf(rows.length, subjects.size - state.wallets));
  if (!place.clientHeight) return;
  const from = Math.max(0, Math.floor(place.scrollTop / ROW_PX) - SPARE);
  const shown = rows.slice(from, from + Math.ceil(place.clientHeight / ROW_PX) + 2 * SPARE);
  element("list").style.height = `${rows.length * ROW_PX}px`;
  const keys = new Set(shown.map(({ key }) => key));
  for (const [key, node] of nodes) {
    if (keys.has(key) || node.contains(document.activeElement)) continue;
    node.remove();
    nodes.delete(key);
  }
  shown.forEach((subject, at) => drawRow(subject, from + at, rows.length));
  freshenShown(shown);
}

const counted = ({ wallets, total }) => [wallets && count(wallets, "wallet"), total && count(total, "address", "addresses")].filter(Boolean).join(", ");

function noteOf(found, listed) {
  if (!state.listed) return "Reading the list…";
  if (search && found === 0 && !isAddable(search)) return "Nothing on the list has that in its label or address.";
  return state.total > listed ? `${count(listed, "address", "addresses")} of ${state.total} are listed here.` : "";
}

function drawRow(subject, at, all) {
  let node = nodes.get(subject.key);
  if (!node) {
    node = copyOf("watched-row");
    node.dataset.key = subject.key;
    node.dataset.kind = subject.kind;
    node.querySelector("a").href = link(subject);
    nodes.set(subject.key, node);
    element("list").append(node);
  }
  node.style.transform = `translateY(${at * ROW_PX}px)`;
  mark(node, "aria-posinset", at + 1);
  mark(node, "aria-setsize", all);
  mark(node.firstElementChild, "aria-current", location.hash === link(subject));
  setText(node, ".name", nameOf(subject.key));
  setText(node, ".sum", amount(subject.balance));
  setText(node, ".what", isWallet(subject) ? walletWords(subject) : subject.label ? short(subject.key) : "");
  setText(node, ".more", moreWords(subject));
  node.classList.toggle("partial", subject.coverage?.utxos_complete === false);
  if (isReading(subject) && !(subject.askedAt > now() - 3)) Object.assign(subject, { stale: true, askedAt: now() });
}

export const walletWords = ({ descriptor = "", keychains = [] }) =>
  `${descriptor.split("(").slice(0, descriptor.startsWith("sh(") ? 2 : 1).join("(")}${keychains[0] ? ` · next ${keychains[0].next_index}` : ""}`;

function moreWords(subject) {
  const { unconfirmed_balance: unconfirmed, coverage } = subject;
  if (isReading(subject)) return coverage.utxos_complete ? "reading history" : "looking for earlier payments";
  if (unconfirmed) return `${brief(unconfirmed, true)} unconfirmed`;
  return coverage?.utxos_complete === false ? "since it was added" : "";
}

/// Arrow keys go through the list, also to rows that are not in the document yet.
function move(event) {
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  const row = event.target.closest("li");
  if (!step || !row) return;
  event.preventDefault();
  const at = sorted.findIndex(({ key }) => key === row.dataset.key) + step;
  const next = sorted[at];
  if (!next) return;
  place.scrollTop = Math.min(Math.max(place.scrollTop, (at + 1) * ROW_PX - place.clientHeight), at * ROW_PX);
  draw();
  nodes.get(next.key)?.firstElementChild.focus();
}

// ---- adding

function drawForm() {
  const barred = !login.may("watch");
  const wants = isAddable(search) && !subjects.has(element("address").value.trim());
  show("add-more", wants);
  say("add-why", wants ? login.whyNot("watch", "adding addresses") : "");
  bar(element("label"), barred);
  bar(element("watch"), barred, adding);
}

function failed(words) {
  say("add-error", words);
  mark(element("address"), "aria-invalid", words !== "");
}

async function add(event) {
  event.preventDefault();
  const field = element("address");
  const text = field.value.trim();
  const only = sort().length === 1 && sorted[0];
  if (subjects.has(text) || (only && !isAddable(text))) return (location.hash = link(subjects.get(text) ?? only));
  if (!text || !login.may("watch")) return;
  const label = element("label").value.trim();
  adding = true;
  drawForm();
  const done = (subject) => {
    event.target.reset();
    search = "";
    failed("");
    location.hash = link(subject);
  };
  await login.attempt(async () => done(await watch(text, label)), failed);
  field.focus();
  adding = false;
  touch();
}

async function watch(text, label) {
  const named = label && { label };
  const known = state.total;
  const answer = isDescriptor(text)
    ? await call("POST", "descriptors", { descriptor: text, ...named }, { seconds: 60 })
    : await call("POST", "add_address", { address: text, ...named });
  // The answer has it as the daemon writes it in events.
  const [kind, key] = answer.descriptor_id ? ["descriptor", answer.descriptor_id] : ["address", answer.address];
  if (!subjects.has(key) && kind === "address" && state.total === known) state.total += 1;
  const subject = put(kind, key, { ...answer, label: answer.label ?? label });
  return Object.assign(subject, { stale: true, addedAt: now(), added: subject.added || now() });
}

