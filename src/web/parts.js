// The addresses of a wallet: those that were used, given out or named.

import { make, redraw } from "./dom.js";
import { call } from "./rest.js";
import { isWallet, touch } from "./state.js";
import { amount, short } from "./words.js";

const PAGE = 50;

export function drawParts(place, view) {
  place.hidden = !isWallet(view);
  if (place.hidden) return;
  if (view.partsAt !== view.version && view.version !== -1) read(view);
  const { parts = [], partsCount } = view;
  redraw(place, [parts, amount(1)], () => {
    const rows = parts.map(({ address, label, used, keychain, index, balance }) => {
      const link = make("a", short(address), { href: `#/address/${address}`, title: address });
      const where = `${keychain === "internal" ? "change " : ""}${index}`;
      return make("li", make("span.amount", amount(balance)), make("span.status", label || (used ? "used" : "given out")), link, make("span.quiet", where));
    });
    const more = partsCount > parts.length ? `The last ${parts.length} of ${partsCount}.` : "";
    return [make("h3", "Addresses"), make("ol", ...rows), make("p.quiet", more)];
  });
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
