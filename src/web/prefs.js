// What a person chose, kept in this browser: unit, hidden amounts, sound, notifications.

import { stored } from "./session.js";

const STORAGE_KEY = stored("prefs");
export const prefs = { unit: "BTC", hidden: false, sound: false, notify: false, ...read(STORAGE_KEY) };

export function choose(change) {
  write(STORAGE_KEY, Object.assign(prefs, change));
}

/// Another tab's choice counts here, too.
export function onChoice(changed) {
  addEventListener("storage", ({ key }) => {
    if (key !== STORAGE_KEY) return;
    Object.assign(prefs, read(STORAGE_KEY));
    changed();
  });
}

/// What is stored under a name; null where nothing is, or storage is refused (private window).
export function read(name) {
  try {
    return JSON.parse(localStorage.getItem(name));
  } catch {
    return null;
  }
}

/// `null` removes it.
export function write(name, value) {
  try {
    if (value === null) localStorage.removeItem(name);
    else localStorage.setItem(name, JSON.stringify(value));
  } catch {
    // The page works without, it only forgets.
  }
}
