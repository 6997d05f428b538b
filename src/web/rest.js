// The daemon's REST, at the place that this page came from (a proxy may have put it under a path).

export const here = new URL(".", location.href);

/// A REST call. Rejects with a sentence for the person.
export async function call(method, path, body) {
  const options = { method, signal: AbortSignal.timeout(15_000) };
  if (body) Object.assign(options, { headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
  let answer, data;
  try {
    answer = await fetch(new URL(path, here), options);
    data = await answer.json();
  } catch {
    throw new Error(answer ? `satwatch answered ${answer.status} with something unreadable.` : "satwatch cannot be reached. Is it running?");
  }
  if (!answer.ok) throw new Error(data.error ?? `satwatch answered ${answer.status}.`);
  return data;
}
