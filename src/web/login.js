// Logging in and out, who is logged in, and what their token may not do. Nothing of it shows while the daemon has no tokens.
//
// The token goes into one request, and the field is emptied; what speaks afterwards is a session (./session.js).

import { element, say } from "./dom.js";
import { call } from "./rest.js";
import { keepPageKey, onOtherTab, pageKey } from "./session.js";

const OVER = "You are not logged in any more: your token was revoked or has expired. Log in again.";

let page; // What app.js does: {changed, connect, leave}.
let who = null; // The token that speaks: {name, scopes, expires}, the widest scope last.
let sent = null; // The key that the connection began with.
let takeFocus = false; // Somebody logged in here, and goes on with the keyboard.

/// Once, before anything else.
export function begin(calls) {
  page = calls;
  element("login-form").onsubmit = logIn;
  element("log-out").onclick = logOut;
  onOtherTab(() => {
    if (pageKey()) resume();
    else if (who) want("You logged out in another tab.", true);
  });
}

/// The page connects.
export function connects() {
  sent = pageKey();
}

/// The connection is there, so somebody is logged in or nobody needs to be.
export async function connected() {
  hide();
  try {
    const token = await call("GET", "token");
    who = token.authentication ? token : null;
  } catch (error) {
    if (seen(error)) return;
  }
  draw();
  if (!takeFocus) return;
  takeFocus = false;
  // After what it disables or not.
  requestAnimationFrame(() => (may("watch") ? element("address") : element("watching-title")).focus());
}

/// Whether it is the answer to somebody who is not logged in (any more).
export function seen(error) {
  if (error.code !== "unauthorized") return false;
  const key = sent;
  const ask = () => {
    if (key !== sent || isWanted()) return;
    if (pageKey() === key) want(key ? OVER : "");
    else resume(); // Another tab has logged in meanwhile.
  };
  setTimeout(ask, key ? 500 : 0); // Another tab that logs out says so a moment later.
  return true;
}

/// Does something that the daemon may refuse; `failed` hears why, in words.
export async function attempt(work, failed) {
  try {
    return await work();
  } catch (error) {
    if (!seen(error)) failed(error.message, error);
  } finally {
    page.changed();
  }
}

export const isWanted = () => !element("login").hidden;

export const may = (scope) => !who || who.scopes.includes(scope);

/// Why something that needs `scope` cannot be done; nothing if it can.
export function whyNot(scope, what) {
  return may(scope) ? "" : `Your token has scope ${who.scopes.at(-1)}; ${what} needs one of scope ${scope}.`;
}

function hide() {
  element("login").hidden = true;
  delete document.body.dataset.login;
}

function resume() {
  hide();
  page.leave(false);
  page.connect();
}

/// Shows the form. `forgetting`: nothing of what was shown is kept for whoever logs in next.
function want(words, forgetting = false) {
  const isNew = !isWanted();
  if (isNew) page.leave(forgetting);
  who = null;
  element("login").hidden = false;
  document.body.dataset.login = "wanted";
  draw();
  if (isNew) fail(words);
}

function fail(words) {
  say("login-error", words);
  element("token").focus();
}

async function logIn(event) {
  event.preventDefault();
  const field = element("token");
  const failed = (words) => {
    field.setAttribute("aria-invalid", String(words !== ""));
    fail(words);
  };
  const token = field.value.trim();
  if (!token) return failed("Enter your token.");
  say("login-error", ""); // So that the same words are said again.
  element("log-in").disabled = true;
  try {
    const session = await call("POST", "session", { token });
    field.value = "";
    failed("");
    keepPageKey(session.page_key);
    takeFocus = true;
    resume();
  } catch (error) {
    if (error.code === "authentication_off") return resume();
    failed(error.message);
    field.select();
  } finally {
    element("log-in").disabled = false;
  }
}

async function logOut() {
  element("log-out").disabled = true;
  page.leave(false); // Before it is ended from the other side.
  try {
    await call("DELETE", "session");
    keepPageKey(null);
    want("", true);
  } catch (error) {
    say("who-text", `You are still logged in. ${error.message}`);
    page.connect();
  } finally {
    element("log-out").disabled = false;
  }
}

function draw() {
  element("who").hidden = !who;
  element("log-out").hidden = !pageKey();
  if (who) {
    const until = who.expires ? `, until ${new Date(who.expires * 1000).toLocaleDateString()}` : "";
    say("who-text", `Logged in as ${who.name} (scope ${who.scopes.at(-1)}${until})`);
  }
  page.changed();
}
