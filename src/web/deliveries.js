// Consumers and webhooks: how far behind, what was answered, what was given up.

import { arrange, bar, button, confirmed, element, isConnected, make, mark, redraw, say } from "./dom.js";
import * as login from "./login.js";
import { call } from "./rest.js";
import { touch } from "./state.js";
import { ago, clock, count, now, span } from "./words.js";

const EVERY_SECONDS = 3;

let consumers = null; // By name, as the list has them.
let at = 0;
let complaint = "";

export function open() {
  at = 0;
}

export function draw() {
  if (now() - at > EVERY_SECONDS && isConnected()) read();
  const rows = consumers ?? [];
  say("deliveries-note", complaint || (consumers && rows.length === 0 ? "There is none. This makes one, and a url beside it makes a webhook: curl -X PUT <this page's address>consumers/shop" : ""));
  arrange(element("consumers"), rows, makeRow, drawRow);
}

async function read() {
  at = now();
  const list = async () => {
    const known = new Map((consumers ?? []).map((one) => [one.name, one]));
    consumers = (await call("GET", "consumers")).consumers.map((one) => Object.assign(known.get(one.name) ?? {}, one));
    for (const one of consumers.filter(({ webhook }) => webhook)) {
      one.attempts = (await call("GET", `consumers/${one.name}`)).webhook?.attempts ?? [];
    }
    complaint = "";
  };
  await login.attempt(list, (words) => (complaint = words));
}

function makeRow(one) {
  const node = make("li.card");
  one.body = make("div");
  one.note = make("p.note");
  mark(one.note, "role", "status"); // As a property it is too new.
  one.letters = make("ol.letters");
  const ask = (what) => act(one, async () => (await call("POST", `consumers/${one.name}/${what}`, undefined, { seconds: 60 })).message);
  one.buttons = [button("Test", () => ask("test")), button("Retry now", () => ask("retry")), button("Dead letters", () => act(one, () => showLetters(one)))];
  node.append(make("h3", one.name), one.body, make("div.row", ...one.buttons), one.note, one.letters);
  return node;
}

async function act(one, work) {
  one.busy = true;
  one.note.textContent = "…";
  touch();
  const said = (words) => (one.note.textContent = words ?? "");
  await login.attempt(async () => said(await work()), said);
  one.busy = false;
  at = 0;
  touch();
}

const states = { stopped: "stopped", failing: "failing, tried again", delivering: "delivering", waiting: "everything delivered" };

function drawRow(one) {
  const { webhook, lag, lag_seconds: behind, readers } = one;
  const lines = [[lag === 0 ? "Up to date" : `${count(lag, "event")} behind${behind ? `, the first from ${span(behind)} ago` : ""}`, lag === 0 ? "done" : "seen"]];
  if (webhook) {
    const dead = webhook.dead_letters ? `, ${count(webhook.dead_letters, "dead letter")}` : "";
    lines.push([`Webhook ${states[webhook.state] ?? webhook.state}${dead}: ${webhook.url ?? ""}`, ["stopped", "failing"].includes(webhook.state) ? "gone" : ""]);
    if (webhook.stopped) lines.push([`It was stopped: ${webhook.stopped.reason ?? webhook.stopped.error ?? "the receiver said 410"}`, "gone"]);
    if (webhook.next_attempt) lines.push([`Next attempt at ${clock(webhook.next_attempt)}`, ""]);
  } else lines.push([readers ? "Being read now" : "Nobody reads it now", ""]);
  const attempts = (one.attempts ?? []).slice(0, 5).map((it) => [`${ago(now() - it.time)}: ${it.status ?? it.error ?? ""} ${it.answer ?? ""}`.trim(), it.delivered === false || it.error ? "gone" : "done"]);
  redraw(one.body, [lines, attempts], () => {
    const line = ([text, look]) => make(`p.line.${look}`, text);
    return [...lines.map(line), ...(attempts.length > 0 ? [make("h4", "Last answers"), ...attempts.map(line)] : [])];
  });
  for (const button of one.buttons) {
    button.hidden = !webhook;
    bar(button, !login.may("admin"), one.busy);
  }
}

async function showLetters(one) {
  const { dead_letters: letters, total } = await call("GET", `consumers/${one.name}/dead_letters?limit=50`);
  one.letters.replaceChildren(...letters.map((it) => make("li", `${it.event}, tried ${count(it.attempts, "time")}, last ${clock(it.last_tried)}: ${it.error}`)));
  if (letters.length === 0) return "There are no dead letters.";
  const choice = (text, method, path) =>
    button(text, () => act(one, async () => {
      if (method === "DELETE" && !(await confirmed(`Drop the dead letters of ${one.name}?`, "They are not sent any more. The events stay in the log.", "Drop them"))) return "";
      const { message } = await call(method, `consumers/${one.name}/${path}`, method === "POST" ? {} : undefined);
      one.letters.replaceChildren();
      return message;
    }));
  one.letters.append(make("li.row", choice("Send them again", "POST", "dead_letters/resend"), choice("Drop them", "DELETE", "dead_letters")));
  return count(total, "dead letter");
}

