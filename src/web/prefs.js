// What a person chose, kept in this browser: unit, hidden amounts, sound, notifications.

import { read, stored, write } from "./session.js";

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
