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
  const ends = new AbortController(); // AbortSignal.any is too new.
  const timer = setTimeout(() => ends.abort(), seconds * 1000);
  if (signal) signal.onabort = () => ends.abort();
  const options = { method, headers, body: body && JSON.stringify(body), signal: ends.signal };
  let answer, data;
  try {
    answer = await fetch(new URL(path, here), options);
    data = await answer.json();
    if (answer.ok) return data;
  } catch {
    data = null;
  } finally {
    clearTimeout(timer);
  }
  const retryMs = Math.min(60, answer?.headers.get("Retry-After") || 0) * 1000;
  if (!data) throw Object.assign(new Error(answer ? `satwatch answered ${answer.status} with something unreadable.` : "satwatch cannot be reached. Is it running?"), { retryMs });
  const { error = `satwatch answered ${answer.status}.`, ...rest } = data;
  throw Object.assign(new Error(error), rest, { status: answer.status, retryMs });
}
