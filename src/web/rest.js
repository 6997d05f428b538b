// The daemon's REST, at the place that this page came from (a proxy may have put it under a path).

import { pageKey } from "./session.js";

export const here = new URL(".", location.href);

/// A REST call. Rejects with a sentence for the person, and the `code` of the daemon's refusal.
export async function call(method, path, body) {
  const headers = {};
  const key = pageKey();
  if (key) headers["Satwatch-Page"] = key;
  if (body) headers["Content-Type"] = "application/json";
  const options = { method, headers, body: body && JSON.stringify(body), signal: AbortSignal.timeout(15_000) };
  let answer, data;
  try {
    answer = await fetch(new URL(path, here), options);
    data = await answer.json();
  } catch {
    throw new Error(answer ? `satwatch answered ${answer.status} with something unreadable.` : "satwatch cannot be reached. Is it running?");
  }
  if (!answer.ok) throw Object.assign(new Error(data.error ?? `satwatch answered ${answer.status}.`), { code: data.code });
  return data;
}
