// Bringing the document in line with the page's state, touching only what differs: focus, selection
// and announcements survive.

export const element = (id) => document.getElementById(id);
export const isConnected = () => document.body.dataset.connection === "connected";

/// Brings the children of `list` in line with `items`, touching only what differs.
export function arrange(list, items, make, update) {
  const nodes = new Set();
  for (const item of items) nodes.add((item.node ??= make(item)));
  for (const child of [...list.children]) if (!nodes.has(child)) child.remove();
  let place = list.firstElementChild;
  for (const item of items) {
    update(item);
    if (place === item.node) place = place.nextElementSibling;
    else list.insertBefore(item.node, place);
  }
}

/// A copy of the one element in a <template>.
export const copyOf = (id) => element(id).content.firstElementChild.cloneNode(true);

/// Writing the same text again would make a screen reader say it again.
export function setText(node, selector, text) {
  const target = node.querySelector(selector);
  if (target.textContent !== String(text)) target.textContent = text;
}

export const say = (id, text) => setText(document, `#${id}`, text);

export function show(id, whether) {
  const node = element(id);
  if (node.hidden === Boolean(whether)) node.hidden = !whether;
}

/// An element, named as in "p.note". Texts and elements become its children, text as text; objects
/// hold its properties.
export function make(name, ...parts) {
  const [tag, ...classes] = name.split(".");
  const node = document.createElement(tag);
  node.className = classes.join(" ");
  for (const part of parts) {
    if (typeof part === "string" || part instanceof Node) node.append(part);
    else Object.assign(node, part);
  }
  return node;
}

export const button = (text, onclick) => make("button", text, { onclick });

const drawn = new WeakMap();

/// Fills a place with what `draw` makes, if what it shows has changed.
export function redraw(place, shown, draw) {
  const now = JSON.stringify(shown);
  if (drawn.get(place) === now) return;
  drawn.set(place, now);
  place.replaceChildren(...draw());
}

/// An attribute, written only if it differs.
export function mark(node, name, value) {
  if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value);
}

/// Disables what the token may not do.
export function bar(control, barred, busy = false) {
  control.classList.toggle("barred", barred);
  control.disabled = barred || busy;
}

/// Asks before something that cannot be undone. Resolves to whether it is to be done.
export function confirmed(question, details, doing) {
  const dialog = element("confirm");
  setText(dialog, "h2", question);
  setText(dialog, "p", details);
  setText(dialog, ".main", doing);
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => (dialog.onclose = () => resolve(dialog.returnValue === "yes")));
}
