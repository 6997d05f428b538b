// What to give to whoever pays: an address, or the next one of a wallet, with an amount, as a QR
// code and as a link (BIP 21).

import { svg } from "./chart.js";
import { copy } from "./detail.js";
import { bar, button, make } from "./dom.js";
import * as login from "./login.js";
import { qr, qrPath } from "./qr.js";
import { call } from "./rest.js";
import { touch } from "./state.js";
import { plainBtc, satoshiOf, unit } from "./words.js";

export function drawReceive(place, view, subject) {
  const isWallet = view.kind === "descriptor";
  if (place.childElementCount === 0) build(place, view, isWallet);
  const parts = view.receive;
  if (parts.next) bar(parts.next, !login.may("watch"), parts.busy);
  const address = isWallet ? parts.given?.address : subject.key;
  const typed = parts.amount.value.trim();
  const satoshi = typed ? satoshiOf(typed) : 0;
  const label = isWallet ? parts.label.value.trim() : subject.label;
  const link = address && uri(address, satoshi, label);
  const drawn = `${link} ${satoshi} ${unit()} ${parts.words}`;
  if (drawn === parts.drawn) return;
  // What was typed was in the other unit.
  if (parts.unit && parts.unit !== unit()) parts.amount.value = "";
  Object.assign(parts, { drawn, unit: unit(), link });
  parts.unitWords.textContent = `Amount in ${unit()} (optional)`;
  parts.amount.setAttribute("aria-invalid", String(satoshi === null));
  parts.shown.hidden = !address;
  parts.note.textContent = satoshi === null ? `Not an amount in ${unit()}.` : parts.words;
  if (!address) return;
  parts.text.textContent = link;
  const rows = qr(link) ?? qr(uri(address, satoshi, ""));
  const size = rows ? rows.length + 8 : 0;
  const image = svg("svg", { viewBox: `0 0 ${size} ${size}`, role: "img", "aria-label": `QR code of ${link}` });
  image.append(svg("path", { d: `M0 0h${size}v${size}H0z`, fill: "#fff" }), svg("path", { d: rows ? qrPath(rows) : "" }));
  parts.code.replaceChildren(...(rows ? [image] : []));
}

function uri(address, satoshi, label) {
  const query = [satoshi > 0 && `amount=${plainBtc(satoshi)}`, label && `label=${encodeURIComponent(label)}`].filter(Boolean);
  return `bitcoin:${address}${query.length > 0 ? `?${query.join("&")}` : ""}`;
}

function build(place, view, isWallet) {
  const field = (id, words) => make("div.field", {}, make("label", { htmlFor: id, textContent: words }), make("input", { id, maxLength: 60, autocomplete: "off", oninput: touch }));
  const amount = field("amount", "Amount");
  const label = field("for-label", "For (optional)");
  const next = isWallet && Object.assign(button("Next address", () => nextAddress(view)), { className: "next" });
  const code = make("div.qr");
  const text = make("code.link");
  const note = make("p.quiet");
  note.setAttribute("role", "status");
  const copying = button("Copy link", ({ target }) => copy(target, view.receive.link));
  const shown = make("div.given", {}, code, make("div", {}, text, amount, copying));
  view.receive = { next, amount: amount.lastChild, unitWords: amount.firstChild, label: label.lastChild, shown, code, text, note, words: "" };
  const details = make("details", { open: isWallet }, make("summary", "Receive"), isWallet && label, next, shown, note);
  place.replaceChildren(details);
}

/// It is reserved: nobody else gets it.
async function nextAddress(view) {
  const parts = view.receive;
  const label = parts.label.value.trim();
  parts.busy = true;
  const reserve = async () => {
    parts.given = await call("POST", `descriptors/${view.key}/next_address`, label ? { label } : {});
    const { index, beyond_gap } = parts.given;
    parts.words = beyond_gap ? `Number ${index}. Other wallets may not look so far for it.` : `Number ${index}, reserved: it is given to nobody else.`;
  };
  await login.attempt(reserve, (words) => (parts.words = words));
  parts.busy = false;
  touch();
}
