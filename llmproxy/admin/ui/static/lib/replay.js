// Sending a recorded request once more, byte for byte: 1.0 and 1 are the same number and not the same request.

import { address, caller, failure, operatorAnswer, query, remembered } from "./api.js";

const MARK = '"request":{"body":';

export const pathOf = (id, below = "") => `/api/history/${encodeURIComponent(id)}${below}`;

/**
 * A record of the history: {record, body}, where body is the request's exact bytes, or null where they are not kept.
 * `row` is its number, which tells apart requests of one id; without it, the newest.
 */
export async function recorded(id, row, signal) {
  const answer = await operatorAnswer(pathOf(id) + (row === undefined ? "" : `?${query({ row })}`), { signal });
  const text = await answer.text();
  const record = JSON.parse(text);
  return { record, body: bodyIn(text, record.request) };
}

/** The same request again: {status, cache, requestId, seconds, detail}. Throws Failure where it fails. */
export async function replayed(record, body, headers = {}) {
  const sent = { "content-type": "application/json", ...headers };
  if (record.namespace) sent["x-llmproxy-namespace"] = record.namespace;
  const began = performance.now();
  const answer = await caller(record.path + (record.query ? `?${record.query}` : ""), { method: record.method, body, headers: sent });
  if (!answer.ok) throw await failure(answer);
  await answer.arrayBuffer();
  return {
    cache: (answer.headers.get("x-cache") ?? "").toLowerCase(),
    requestId: answer.headers.get("x-request-id") ?? "",
    seconds: (performance.now() - began) / 1000,
  };
}

/** The same request as a command for a shell. */
export function command(record, body) {
  const path = record.path + (record.query ? `?${record.query}` : "");
  const lines = [`curl ${record.stream ? "-N " : ""}${quoted(address(path))}`, "-H 'content-type: application/json'"];
  if (remembered.key) lines.push('-H "authorization: Bearer $OPENAI_API_KEY"');
  if (record.namespace) lines.push(`-H ${quoted(`x-llmproxy-namespace: ${record.namespace}`)}`);
  lines.push(`--data-binary ${quoted(new TextDecoder().decode(body))}`);
  return lines.join(" \\\n  ");
}

const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

function bodyIn(text, request) {
  if (request.body === null || request.cut) return null;
  if (typeof request.body === "string") return new TextEncoder().encode(request.body);
  // inside of a string every quote is escaped: the first such place is the member itself
  const rest = new TextEncoder().encode(text.slice(text.indexOf(MARK) + MARK.length));
  return rest.subarray(0, request.bytes);
}
