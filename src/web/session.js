// The page's half of its session. The other half is a cookie, which scripts cannot read; the daemon wants both, because
// browser and server keep cookies apart by host only, and storage by port, too. Neither is the token, which is kept nowhere.

/// The name under which something is stored: a proxy may have put several daemons under one host, each in a folder.
export const stored = (name) => `satwatch.${name}${new URL(".", location.href).pathname.slice(0, -1)}`;

const STORAGE_KEY = stored("page_key");
let held = null; // Where storage is refused (private window), for as long as the page is open.

export function pageKey() {
  try {
    return localStorage.getItem(STORAGE_KEY) ?? held;
  } catch {
    return held;
  }
}

/// `null`: nobody is logged in any more.
export function keepPageKey(key) {
  held = key;
  try {
    if (key) localStorage.setItem(STORAGE_KEY, key);
    else localStorage.removeItem(STORAGE_KEY);
  } catch {
    // It is held.
  }
}

/// Calls `changed` when another tab has logged in or out.
export function onOtherTab(changed) {
  addEventListener("storage", (event) => {
    if (event.key !== STORAGE_KEY && event.key !== null) return;
    held = null;
    changed();
  });
}
