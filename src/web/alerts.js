// Telling of payments: to screen readers always, in the tab's title while nobody looks, by sound and
// by the browser's notifications when asked for.

import { element, say, show } from "./dom.js";
import { choose, prefs } from "./prefs.js";
import { stored } from "./session.js";
import { nameOf, state } from "./state.js";
import { amountUnit, count, direction, standing } from "./words.js";

const FEW = 3;
const SOUND_MS = 1_500;
const SPOKEN_MS = 1_000;

let unseen = 0; // Payments since the page was last looked at.
let rang = 0;
let unspoken = [];
let speaking = null;
let audio = null;
export let leads = false; // This tab rings for all.

/// News that has come: payments, and changes of payments (with `update`).
export function tell(news) {
  const arrived = news.filter(({ update }) => !update);
  if (document.hidden) unseen += arrived.length;
  nameTab();
  unspoken.push(...news);
  speaking ??= setTimeout(speak, SPOKEN_MS);
  if (arrived.length === 0) return;
  // Where tabs cannot know of each other (plain HTTP), each rings.
  if (navigator.locks && !leads) return;
  if (prefs.sound) ring();
  if (prefs.notify && document.hidden) notify(arrived);
}

function speak() {
  speaking = null;
  const few = unspoken.length <= FEW;
  say("say", few ? unspoken.map(words).join(". ") : `${count(unspoken.length, "change")} of payments`);
  unspoken = [];
}

function words(payment) {
  return `${direction(payment.net)[2]} ${amountUnit(Math.abs(payment.net))}, ${nameOf(payment.subject)}: ${standing(payment, state.tip).words}`;
}

function nameTab() {
  if (!document.hidden) unseen = 0;
  document.title = unseen ? `(${unseen}) satwatch` : "satwatch";
}

/// Two short tones, made here: there is no file to fetch.
function ring() {
  if (Date.now() - rang < SOUND_MS) return;
  rang = Date.now();
  audio ??= new AudioContext();
  audio.resume();
  [660, 880].forEach((pitch, at) => {
    const [tone, volume, start] = [audio.createOscillator(), audio.createGain(), audio.currentTime + at * 0.15];
    tone.frequency.value = pitch;
    volume.gain.setValueAtTime(0.15, start);
    volume.gain.exponentialRampToValueAtTime(0.001, start + 0.3);
    tone.connect(volume).connect(audio.destination);
    tone.start(start);
    tone.stop(start + 0.3);
  });
}

function notify(arrived) {
  if (globalThis.Notification?.permission !== "granted") return;
  const body = arrived.length <= FEW ? arrived.map(words).join("\n") : count(arrived.length, "payment");
  const shown = note(body);
  if (shown) shown.onclick = () => {
    focus();
    shown.close();
  };
}

/// Browsers of phones have the constructor, and refuse it.
function note(body) {
  try {
    return new Notification("satwatch", { body, tag: "satwatch", icon: "icon.svg" });
  } catch {
    say("alert-note", "This browser shows no notifications of pages.");
  }
}

export function begin() {
  navigator.locks?.request(stored("alerts"), () => {
    leads = true;
    return new Promise(() => {});
  });
  const button = element("alerts");
  button.onclick = () => {
    const opens = element("alerts-panel").hidden;
    show("alerts-panel", opens);
    button.setAttribute("aria-expanded", String(opens));
    if (opens) element("sound").focus();
  };
  element("alerts-panel").onkeydown = ({ key }) => key === "Escape" && (button.click(), button.focus());
  for (const name of ["sound", "notify"]) {
    element(name).checked = prefs[name];
    element(name).onchange = () => ask(name);
  }
  element("try-alert").onclick = tryOut;
  document.addEventListener("visibilitychange", nameTab);
}

async function ask(name) {
  let on = element(name).checked;
  say("alert-note", "");
  if (name === "notify" && on && (await permission()) !== "granted") {
    on = element(name).checked = false;
    say("alert-note", "The browser does not allow notifications for this page; its site settings can change that.");
  }
  choose({ [name]: on });
}

const permission = () => globalThis.Notification?.requestPermission() ?? "denied";

function tryOut() {
  if (prefs.sound) ring();
  say("alert-note", prefs.sound || prefs.notify ? "" : "Choose sound or notification first.");
  if (prefs.notify) note("This is how a payment is told.");
}
