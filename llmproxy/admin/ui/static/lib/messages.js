// What was said, from the bodies of any endpoint: a list of {role, text, kind, source}. Unknown shapes give an empty list.
// `source` is a picture that came with the body.

const said = (role, text, kind = "text") => ({ role: String(role), text: String(text), kind });

/** What a request says. */
export function asked(body) {
  if (!isObject(body)) return [];
  const found = [];
  if (body.system !== undefined) found.push(...content("system", body.system));
  if (typeof body.instructions === "string") found.push(said("system", body.instructions));
  for (const message of list(body.messages)) found.push(...messageOf(message));
  if (body.prompt !== undefined) for (const text of many(body.prompt)) found.push(...content("user", text));
  if (body.input !== undefined) for (const item of many(body.input)) found.push(...itemOf(item, "user"));
  if (typeof body.query === "string") found.push(said("query", body.query));
  for (const document of list(body.documents)) found.push(...content("document", document));
  return found;
}

/** What its answer says. */
export function answered(body) {
  if (!isObject(body)) return [];
  const found = [];
  for (const choice of list(body.choices)) {
    if (isObject(choice.message)) found.push(...messageOf(choice.message));
    else if (choice.text !== undefined) found.push(said("assistant", choice.text));
  }
  for (const item of list(body.output)) found.push(...itemOf(item, "assistant"));
  if (isObject(body.message)) found.push(...messageOf(body.message));
  if (typeof body.response === "string") found.push(said("assistant", body.response));
  if (body.type === "message") found.push(...content(body.role ?? "assistant", body.content));
  found.push(...vectors(body), ...ranks(body));
  if (body.error) found.push(said("error", body.error.message ?? JSON.stringify(body.error), "error"));
  return found;
}

/** A text that stands for the whole of it in a list. */
export function headline(messages) {
  return messages.findLast((message) => message.role === "user")?.text ?? messages[0]?.text ?? "";
}

function messageOf(message) {
  if (!isObject(message)) return [];
  const role = message.role ?? "assistant";
  const thought = message.reasoning_content ?? message.reasoning ?? message.thinking;
  const found = thought ? [said(role, thought, "reasoning")] : [];
  if (message.content !== undefined && message.content !== null) found.push(...content(role, message.content));
  // Ollama's, without a word of what they are
  for (const data of list(message.images)) if (typeof data === "string") found.push(picture(role, `data:${kindOf(data)};base64,${data}`));
  for (const call of list(message.tool_calls)) {
    const named = isObject(call.function) ? call.function : call;
    found.push(said(role, `${named.name}(${asText(named.arguments)})`, "tool call"));
  }
  return found;
}

function itemOf(item, role) {
  if (!isObject(item)) return content(role, item);
  if (item.type === "function_call") return [said(role, `${item.name}(${asText(item.arguments)})`, "tool call")];
  if (item.type === "function_call_output") return [said("tool", asText(item.output))];
  if (item.type === "reasoning") {
    return [...list(item.summary), ...list(item.content)].map((part) => said(role, part.text ?? "", "reasoning"));
  }
  return content(item.role ?? role, item.content ?? item);
}

function content(role, value) {
  if (!Array.isArray(value)) return [said(role, asText(value))];
  return value.map((part) => partOf(role, part));
}

function partOf(role, part) {
  if (!isObject(part)) return said(role, asText(part));
  if (typeof part.text === "string") return said(role, part.text);
  if (part.type === "tool_use") return said(role, `${part.name}(${asText(part.input)})`, "tool call");
  if (part.type === "tool_result") return said("tool", asText(part.content));
  const address = part.image_url?.url ?? part.image_url ?? part.source?.url;
  if (typeof address === "string") return picture(role, address);
  if (part.type === "image" && typeof part.source?.data === "string") {
    return picture(role, `data:${part.source.media_type};base64,${part.source.data}`);
  }
  if (part.type === "thinking") return said(role, part.thinking ?? "", "reasoning");
  return said(role, String(part.type ?? "part"), "attachment");
}

/** One that came with the body is shown; one at an address is named, not fetched: the address is the caller's. */
function picture(role, address) {
  const source = /^data:image\/(png|jpeg|gif|webp);base64,[\w+/=\s]+$/.test(address) ? address : undefined;
  const text = source || address.startsWith("data:") ? "" : address;
  return { role: String(role), text, kind: source || text ? "image" : "image that cannot be shown", source };
}

const BEGINNINGS = { iVBOR: "image/png", "/9j/": "image/jpeg", R0lG: "image/gif", UklG: "image/webp" };

function kindOf(data) {
  return Object.entries(BEGINNINGS).find(([beginning]) => data.startsWith(beginning))?.[1] ?? "";
}

function vectors(body) {
  const all = body.embeddings ?? (body.object === "list" && list(body.data).map((row) => row?.embedding));
  if (!Array.isArray(all) || all.length === 0) return [];
  const size = Array.isArray(all[0]) ? `${all[0].length} numbers each` : "base64";
  return [said("vectors", `${all.length} ${all.length === 1 ? "vector" : "vectors"}, ${size}`, "attachment")];
}

function ranks(body) {
  return list(body.results)
    .filter((row) => isObject(row) && "relevance_score" in row)
    .map((row) => said("rank", `document ${row.index}: ${row.relevance_score}`));
}

function asText(value) {
  return typeof value === "string" ? value : JSON.stringify(value) ?? "";
}

const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);
const list = (value) => (Array.isArray(value) ? value : []);
// a prompt may be a text, texts, or tokens: a list of numbers is one prompt
const many = (value) => (Array.isArray(value) && typeof value[0] !== "number" ? value : [value]);
