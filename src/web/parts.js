// The addresses of a wallet: those that were used, given out or named.

import { make } from "./dom.js";
import { call } from "./rest.js";
import { touch } from "./state.js";
import { amount, short } from "./words.js";

const PAGE = 50;

export function drawParts(place, view, isWallet) {
  place.hidden = !isWallet;
  if (!isWallet) return;
  if (view.partsAt !== view.version && view.version !== -1) read(view);
  const { parts = [], partsCount } = view;
  const drawn = JSON.stringify([parts.map((part) => [part.address, part.balance, part.label, part.used]), amount(1), partsCount]);
  if (drawn === view.partsDrawn) return;
  view.partsDrawn = drawn;
  const rows = parts.map((part) => {
    const how = part.label || (part.used ? "used" : "given out");
    const link = make("a", { href: `#/address/${part.address}`, textContent: short(part.address), title: part.address });
    return make("li", {}, make("span.amount", amount(part.balance)), make("span.status", how), link, make("span.quiet", `${part.keychain === "internal" ? "change " : ""}${part.index}`));
  });
  const more = partsCount > parts.length && make("p.quiet", `The last ${parts.length} of ${partsCount}.`);
  place.replaceChildren(make("h3", "Addresses"), make("ol", {}, ...rows), more || "");
}

/// The last ones of each keychain up to the next that would be given out.
async function read(view) {
  view.partsAt = view.version;
  const found = [];
  let known = 0;
  try {
    const { keychains } = await call("GET", `descriptors/${view.key}`);
    for (const { keychain, next_index: next, last_used: last } of keychains) {
      const end = Math.max(next, (last ?? -1) + 1);
      known += end;
      if (end === 0) continue;
      const from = Math.max(0, end - PAGE);
      const page = await call("GET", `descriptors/${view.key}/addresses?keychain=${keychain}&from=${from}&limit=${end - from}`);
      found.push(...page.addresses.reverse());
    }
    Object.assign(view, { parts: found, partsCount: known });
  } catch {
    return; // The next event, or the answer about the balance, says what is wrong.
  }
  touch();
}
