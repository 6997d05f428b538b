// A balance over time as steps, drawn from the net amounts of transactions.

import { isGone } from "./words.js";

const [WIDTH, HEIGHT] = [320, 96];

/// An element of an SVG image.
export function svg(name, attributes) {
  const node = document.createElementNS(document.querySelector("svg").namespaceURI, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  return node;
}

/// [time, balance after], oldest first, ending with what the balance is now. `transactions` are the
/// newest ones, newest first.
export function steps(transactions, balance, now) {
  const points = [];
  let after = balance;
  let time = now;
  for (const tx of transactions) {
    if (isGone(tx)) continue;
    time = Math.min(time, tx.block_time ?? tx.first_seen);
    points.unshift([time, after]);
    after -= tx.net;
  }
  if (points.length > 0) points.unshift([points[0][0], after]);
  return points;
}

export function chart(points, now, label) {
  const [from, most] = [points[0][0], Math.max(...points.map(([, value]) => value), 1)];
  const x = (time) => ((time - from) / Math.max(1, now - from)) * WIDTH;
  const y = (value) => HEIGHT - 2 - (Math.max(0, value) / most) * (HEIGHT - 6);
  let path = `M0 ${y(points[0][1]).toFixed(1)}`;
  for (const [time, value] of points) path += `H${x(time).toFixed(1)}V${y(value).toFixed(1)}`;
  path += `H${WIDTH}`;
  const image = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", "aria-label": label });
  image.append(svg("path", { class: "area", d: `${path}V${HEIGHT}H0Z` }), svg("path", { class: "line", d: path }));
  return image;
}
