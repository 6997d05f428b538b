// The page: what the daemon watches, and one row for each payment, which changes in place.
//
// State first, drawing second: answers and events change ./state.js, and one `draw` a frame brings
// the document in line. Reading the log (./log.js) is the connection: what was missed is replayed, and then
// the page waits for what comes. Amounts stay integers in
// satoshi until ./words.js writes them. Text from outside goes through textContent only.

import * as alerts from "./alerts.js";
import * as away from "./away.js";
import * as deliveries from "./deliveries.js";
import * as detail from "./detail.js";
import { bar, element, isConnected, mark, say, show } from "./dom.js";
import * as feed from "./feed.js";
import * as list from "./list.js";
import * as login from "./login.js";
import * as node from "./node.js";
import { choose, onChoice, prefs } from "./prefs.js";
import { hurry } from "./log.js";
import { clear, onChange, state } from "./state.js";
import * as sync from "./sync.js";
import { drawTruth, trouble } from "./truth.js";
import { now, unit } from "./words.js";

const SLEEP_MS = 30_000;
let drawing = false;
let upTo = 0; // When the connection was last there, in seconds.
let ticked = Date.now();

function connect() {
  login.connects();
  sync.begin();
}

function connected() {
  if (isConnected()) return;
  document.body.dataset.connection = "connected";
  say("connection", "Connected");
  upTo = Infinity;
  login.connected();
}

/// What was shown stays, with the time that it is from.
function leave(words) {
  document.body.dataset.connection = "waiting";
  upTo = Math.min(upTo, now());
  say("connection", words);
  schedule();
}

login.begin({
  changed: schedule,
  connect,
  /// Nothing comes while nobody is logged in; what was shown stays for whoever logs in again,
  /// unless it was left on purpose.
  leave(forgetting) {
    sync.end();
    leave("Not logged in");
    if (!forgetting) return;
    clear();
    sync.forget();
    away.forget();
    upTo = 0;
  },
});

// ---- drawing

function schedule() {
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(() => {
    drawing = false;
    draw();
  });
}

function draw() {
  const view = document.body.dataset.view;
  drawTruth(upTo);
  drawNotice();
  drawTools();
  list.draw();
  feed.draw();
  away.draw();
  detail.draw();
  if (view === "deliveries") deliveries.draw();
  if (view === "node") node.draw();
}

function drawNotice() {
  const stopped = state.daemon.realtime_monitoring === false;
  const words = [trouble(state.daemon), stopped && login.whyNot("admin", "starting it")].filter(Boolean).join(" ");
  say("notice-text", words);
  show("notice", isConnected() && words !== "");
  show("start", stopped);
  bar(element("start"), !login.may("admin"));
}

function drawTools() {
  say("unit", unit());
  mark(element("unit"), "aria-label", `Unit: ${unit()}`);
  mark(element("hide"), "aria-pressed", prefs.hidden);
  say("hide", prefs.hidden ? "Show" : "Hide");
  say("payments-unit", unit());
}

// ---- which view

/// #/ payments, #/watching, #/address/…, #/wallet/…, #/deliveries, #/node
function route() {
  const [, first = "", key = ""] = location.hash.split("/");
  const isDetail = first === "address" || first === "wallet";
  const view = isDetail ? "detail" : ["watching", "deliveries", "node"].includes(first) ? first : "payments";
  const moved = document.body.dataset.view !== view;
  document.body.dataset.view = view;
  for (const link of document.querySelectorAll("nav a")) mark(link, "aria-current", link.dataset.for === view && "page");
  detail.open(isDetail ? key : null, first);
  if (view === "deliveries") deliveries.open();
  if (moved && view !== "detail") element(`${view}-title`).focus({ preventScroll: true });
  schedule();
}

// ---- what the person does

element("start").onclick = () => node.monitoring("start");
element("unit").onclick = () => chosen({ unit: prefs.unit === "sat" ? "BTC" : "sat" });
element("hide").onclick = () => chosen({ hidden: !prefs.hidden });
element("confirm").onclick = ({ target }) => {
  if (target.matches("button")) element("confirm").close(target.matches(".main") ? "yes" : "no");
};

function chosen(change) {
  choose(change);
  schedule();
}

addEventListener("hashchange", route);
addEventListener("online", () => login.isWanted() || sync.begin());
document.addEventListener("visibilitychange", () => {
  away.looked();
  if (document.hidden) return sync.save();
  hurry();
  schedule();
});
addEventListener("pagehide", sync.save);

/// Every second: ages grow, and a clock that jumped was a sleep.
setInterval(() => {
  const slept = Date.now() - ticked > SLEEP_MS;
  if (slept && !document.hidden) away.since(ticked / 1000);
  ticked = Date.now();
  if (isConnected()) {
    if (slept && !document.hidden) sync.begin();
    sync.tick();
  }
  if (!document.hidden) schedule();
}, 1_000);

onChange(schedule);
onChoice(schedule);
alerts.begin();
list.begin();
feed.begin();
away.begin();
sync.setUp({ connected, leave });
route();
connect();
