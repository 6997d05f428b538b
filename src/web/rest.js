// The daemon's REST, at the place that this page came from (a proxy may have put it under a path).

import { pageKey } from "./session.js";

export const here = new URL(".", location.href);

/// A REST call. Rejects with a sentence for the person, the `code` of the daemon's refusal and
/// whatever else it says, such as a `cursor` to go on from.
export async function call(method, path, body, { signal, seconds = 15 } = {}) {
  const headers = {};
  const key = pageKey();
  if (key) headers["Satwatch-Page"] = key;
  if (body) headers["Content-Type"] = "application/json";
  const ends = AbortSignal.any([AbortSignal.timeout(seconds * 1000), signal].filter(Boolean));
  const options = { method, headers, body: body && JSON.stringify(body), signal: ends };
  let answer, data;
  try {
    answer = await fetch(new URL(path, here), options);
    data = await answer.json();
  } catch {
    throw new Error(answer ? `satwatch answered ${answer.status} with something unreadable.` : "satwatch cannot be reached. Is it running?");
  }
  if (answer.ok) return data;
  const { error = `satwatch answered ${answer.status}.`, ...rest } = data;
  throw Object.assign(new Error(error), rest, { status: answer.status });
}
