// Bringing the document in line with the page's state, touching only what differs: focus, selection and announcements survive.

/// Brings the children of `list` in line with `items`, touching only what differs.
export function arrange(list, items, make, update) {
  for (const item of items) item.node ??= make(item);
  const nodes = new Set(items.map((item) => item.node));
  for (const child of [...list.children]) if (!nodes.has(child)) child.remove();
  items.forEach((item, index) => {
    update(item);
    if (list.children[index] !== item.node) list.insertBefore(item.node, list.children[index] ?? null);
  });
}

/// A copy of the one element in a <template>.
export const copyOf = (id) => document.getElementById(id).content.firstElementChild.cloneNode(true);

/// Writing the same text again would make a screen reader say it again.
export function setText(node, selector, text) {
  const target = node.querySelector(selector);
  if (target.textContent !== text) target.textContent = text;
}
