// The page's half of its session. The other half is a cookie, which scripts cannot read; the daemon wants both, because
// browser and server keep cookies apart by host only, and storage by port, too. Neither is the token, which is kept nowhere.

/// The name under which something is stored: a proxy may have put several daemons under one host, each in a folder.
export const stored = (name) => `satwatch.${name}${new URL(".", location.href).pathname.slice(0, -1)}`;

const STORAGE_KEY = stored("page_key");
let held = null; // Where storage is refused (private window), for as long as the page is open.

export const pageKey = () => read(STORAGE_KEY) ?? held;

/// `null`: nobody is logged in any more.
export function keepPageKey(key) {
  held = key;
  write(STORAGE_KEY, key);
}

/// Calls `changed` when another tab has logged in or out.
export function onOtherTab(changed) {
  addEventListener("storage", (event) => {
    if (event.key !== STORAGE_KEY && event.key !== null) return;
    held = null;
    changed();
  });
}

/// What is stored under a name; null where nothing is, or storage is refused (private window).
export function read(name) {
  let text = null;
  try {
    text = localStorage.getItem(name);
    return JSON.parse(text);
  } catch {
    return text;
  }
}

/// `null` removes it.
export function write(name, value) {
  try {
    if (value === null) localStorage.removeItem(name);
    else localStorage.setItem(name, typeof value === "string" ? value : JSON.stringify(value));
  } catch {
    // The page works without, it only forgets.
  }
}
