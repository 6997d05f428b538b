// What to give to whoever pays: an address, or the next one of a wallet, with an amount, as a QR
// code and as a link (BIP 21).

import { svg } from "./chart.js";
import { copy } from "./detail.js";
import { bar, mark, redraw, setText } from "./dom.js";
import * as login from "./login.js";
import { qr, qrPath } from "./qr.js";
import { call } from "./rest.js";
import { isWallet, touch } from "./state.js";
import { plainBtc, satoshiOf, unit } from "./words.js";

export function drawReceive(place, view, subject) {
  const find = (selector) => place.querySelector(selector);
  const parts = (view.receive ??= begin(place, view));
  bar(find(".next"), !login.may("watch"), parts.busy);
  const field = find("#amount");
  // What was typed was in the other unit.
  if (parts.unit !== unit()) field.value = "";
  parts.unit = unit();
  const satoshi = field.value.trim() ? satoshiOf(field.value) : 0;
  setText(place, "[for=amount]", `Amount in ${unit()} (optional)`);
  mark(field, "aria-invalid", satoshi === null);
  setText(place, "[role=status]", satoshi === null ? `Not an amount in ${unit()}.` : parts.words);
  const address = isWallet(view) ? parts.address : subject.key;
  find(".given").hidden = !address;
  if (!address) return;
  const label = isWallet(view) ? find("#for-label").value.trim() : subject.label;
  const link = uri(address, satoshi, label);
  setText(place, ".link", link);
  redraw(find(".qr"), link, () => {
    const rows = qr(link) ?? qr(uri(address, satoshi, ""));
    const size = rows.length + 8;
    const image = svg("svg", { viewBox: `0 0 ${size} ${size}`, role: "img", "aria-label": `QR code of ${link}` });
    image.append(svg("path", { d: `M0 0h${size}v${size}H0z`, fill: "#fff" }), svg("path", { d: qrPath(rows) }));
    return [image];
  });
}

function uri(address, satoshi, label) {
  const query = [satoshi > 0 && `amount=${plainBtc(satoshi)}`, label && `label=${encodeURIComponent(label)}`].filter(Boolean);
  return `bitcoin:${address}${query.length > 0 ? `?${query.join("&")}` : ""}`;
}

function begin(place, view) {
  const find = (selector) => place.querySelector(selector);
  place.open = isWallet(view);
  for (const one of place.querySelectorAll(".of-wallet")) one.hidden = !place.open;
  place.oninput = touch;
  find(".next").onclick = () => nextAddress(view, find("#for-label").value.trim());
  find(".copy-link").onclick = ({ target }) => copy(target, find(".link").textContent);
  return { words: "", unit: unit() };
}

/// It is reserved: nobody else gets it.
async function nextAddress(view, label) {
  const parts = view.receive;
  parts.busy = true;
  const reserve = async () => {
    const { address, index, beyond_gap } = await call("POST", `descriptors/${view.key}/next_address`, label ? { label } : {});
    parts.address = address;
    parts.words = beyond_gap ? `Number ${index}. Other wallets may not look so far for it.` : `Number ${index}, reserved: it is given to nobody else.`;
  };
  await login.attempt(reserve, (words) => (parts.words = words));
  parts.busy = false;
  touch();
}
