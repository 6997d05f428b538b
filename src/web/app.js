// The page: what the daemon watches, and one row for each payment, which changes in place.
//
// State first, drawing second: answers and events change ./state.js, and one `draw` a frame brings
// the document in line. What is missed is replayed from the log (./log.js); the connection
// (./socket.js) says whether the daemon is there and who may speak. Amounts stay integers in
// satoshi until ./words.js writes them. Text from outside goes through textContent only.

import * as alerts from "./alerts.js";
import * as away from "./away.js";
import * as deliveries from "./deliveries.js";
import * as detail from "./detail.js";
import { bar, element, mark, say, show } from "./dom.js";
import * as feed from "./feed.js";
import * as list from "./list.js";
import * as login from "./login.js";
import * as node from "./node.js";
import { choose, onChoice, prefs } from "./prefs.js";
import { here } from "./rest.js";
import { Socket } from "./socket.js";
import { clear, onChange, state, takeTip } from "./state.js";
import * as sync from "./sync.js";
import { drawTruth, trouble } from "./truth.js";
import { unit } from "./words.js";

const SLEEP_MS = 30_000;
let drawing = false;
let complaint = ""; // The last `error` event.
let upTo = 0; // When the connection was last there, in seconds.
let ticked = Date.now();

const isConnected = () => document.body.dataset.connection === "connected";
const socket = new Socket(new URL("socket.io/", here), login.payload, onConnection);

function onConnection(how, words) {
  document.body.dataset.connection = how;
  if (how === "connected") {
    say("connection", `Connected ${words}`.trim());
    upTo = Infinity;
    complaint = "";
    login.connected();
    sync.begin(words !== "");
  } else if (how === "waiting") {
    leave(`Reconnecting. ${words}`);
  } else if (how === "unauthorized") {
    login.refused();
  }
  schedule();
}

/// What was shown stays, with the time that it is from.
function leave(words) {
  upTo = Math.min(upTo, Date.now() / 1000);
  sync.end();
  say("connection", words);
}

login.begin({
  changed: schedule,
  connect: () => socket.connect(),
  /// Nothing comes while nobody is logged in; what was shown stays for whoever logs in again,
  /// unless it was left on purpose.
  leave(forgetting) {
    socket.close();
    document.body.dataset.connection = "waiting";
    leave("Not logged in");
    if (!forgetting) return;
    clear();
    sync.forget();
    away.forget();
    [complaint, upTo] = ["", 0];
  },
});

socket.on("connected", (data) => {
  state.daemon.network = data.network ?? state.daemon.network;
  takeTip(data.tip);
  schedule();
});

socket.on("error", (data) => {
  // The session ends; what that means is found out by connecting again.
  if (data?.code === "unauthorized") return;
  complaint = String(data?.error ?? "satwatch reported an error without words.");
  schedule();
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
  drawTruth(upTo, sync.failing());
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
  const words = [complaint, trouble(state.daemon), stopped && login.whyNot("admin", "starting it")].filter(Boolean).join(" ");
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
  for (const link of document.querySelectorAll("nav a")) {
    if (link.dataset.for === view) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  detail.open(isDetail ? decodeURIComponent(key) : null, first);
  if (view === "deliveries") deliveries.open();
  if (moved && view !== "detail") element(`${view}-title`).focus({ preventScroll: true });
  schedule();
}

// ---- what the person does

element("start").addEventListener("click", () => node.monitoring("start"));
element("unit").addEventListener("click", () => chosen({ unit: prefs.unit === "sat" ? "BTC" : "sat" }));
element("hide").addEventListener("click", () => chosen({ hidden: !prefs.hidden }));
element("confirm").addEventListener("click", ({ target }) => {
  if (target.matches("button")) element("confirm").close(target.matches(".main") ? "yes" : "no");
});

function chosen(change) {
  choose(change);
  schedule();
}

/// Does nothing while the page waits for somebody to log in.
function connect() {
  if (!login.isWanted()) socket.connect();
}

addEventListener("hashchange", route);
addEventListener("online", connect);
document.addEventListener("visibilitychange", () => {
  away.looked();
  if (document.hidden) return sync.save();
  connect();
  sync.hurry();
  schedule();
});
addEventListener("pagehide", () => sync.save());

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
sync.setUp({ seen: login.seen, isConnected });
route();
socket.connect();
