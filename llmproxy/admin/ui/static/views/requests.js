// Requests as they come in, and the search among those of before.

import { address, operator, query as joined } from "../lib/api.js";
import { few, percent, plural, seconds, whole } from "../lib/format.js";
import { html, useEffect, useMemo, useRef, useState } from "../lib/html.js";
import { usePoll } from "../lib/poll.js";
import { go, link } from "../lib/route.js";
import { CacheMark, StatusMark, Time } from "../parts/marks.js";
import { Empty, Problem, Waiting } from "../parts/notes.js";
import { Pages, Table } from "../parts/table.js";

const ROWS = 50;
const FILTERS = ["q", "cache", "order", "endpoint", "status", "model", "user_id", "session_id", "min_seconds", "min_tokens", "since", "until"];
const ORDERS = { slowest: "slowest first", tokens: "most tokens first" };
export const ENDPOINTS = ["chat", "completions", "embeddings", "responses", "messages", "rerank", "transcriptions",
  "ollama-chat", "ollama-generate", "ollama-embed", "ollama-embeddings", "other"];

const COLUMNS = [
  { name: "Time", order: "", cell: (row) => html`<${Time} at=${row.created_at} />` },
  { name: "Cache", cell: (row) => html`<${CacheMark} cache=${row.cache} />` },
  { name: "Asked", kind: "asked", cell: (row) => html`<span class="line">${said(row)}</span>` },
  { name: "Status", kind: "wide", cell: (row) => html`<${StatusMark} status=${row.status} cache=${row.cache} />` },
  { name: "Endpoint", kind: "wider", cell: (row) => row.endpoint },
  { name: "Model", kind: "clip", cell: (row) => row.model },
  { name: "User", kind: "wide clip", cell: (row) => row.user },
  { name: "Session", kind: "wider clip", cell: (row) => row.session },
  { name: "Tokens", kind: "number wide", order: "tokens", cell: (row) => tokens(row) },
  { name: "First", kind: "number widest", cell: (row) => seconds(row.first_token_seconds) },
  { name: "Total", kind: "number", order: "slowest", cell: (row) => seconds(row.total_seconds) },
];

export function Requests({ query }) {
  const filters = Object.fromEntries(FILTERS.filter((name) => query.has(name)).map((name) => [name, query.get(name)]));
  const cursor = query.get("cursor") ?? undefined;
  const [live, setLive] = useState(true);
  const asked = joined({ ...spoken(filters), preview: true, limit: ROWS, cursor });
  // what is ranked is a search, and does not move
  const tail = live && !cursor && !filters.order;
  const load = async (signal) => ({ ...(await operator(`/api/history?${asked}`, { signal })), asked });
  const { data, error, reload } = usePoll(load, tail ? 2 : 0, [asked]);
  const fresh = useFresh(data);
  // said once for each search, not for each request that comes in
  const found = useMemo(() => (data ? `${plural(data.data.length, "request")}${data.next ? ", and there are more" : ""}` : ""), [data?.asked]);
  return html`<div class="title"><h1>Requests</h1>
      <label class="switch"><input type="checkbox" checked=${live} disabled=${Boolean(cursor || filters.order)}
        onChange=${() => setLive(!live)} /> Live</label></div>
    <${Filters} filters=${filters} />
    <${Sum} what="sessions" name=${filters.session_id} />
    <${Sum} what="users" name=${filters.user_id} />
    <${Problem} error=${error} retry=${reload} />
    <p class="unseen" role="status">${found}</p>
    ${data ? html`<${Rows} page=${data} fresh=${fresh} filters=${filters} cursor=${cursor} />` : error ? null : html`<${Waiting} />`}`;
}

function Rows({ page, fresh, filters, cursor }) {
  if (!page.data.length && !page.next) {
    return Object.keys(filters).length
      ? html`<${Empty} title="Nothing matches">Take a filter away, or look for other words.<//>`
      : html`<${Empty} title="No requests yet">Point OPENAI_BASE_URL at ${address("/v1")}, or <a href="#/try">ask something here</a>.<//>`;
  }
  const caption = `Requests, ${ORDERS[filters.order] ?? "the newest first"}`;
  const sort = { order: filters.order ?? "", to: (order) => link("requests", "", { ...filters, order: order || undefined }) };
  return html`<${Table} caption=${caption} sort=${sort} columns=${COLUMNS} rows=${page.data} id=${(row) => row.id}
      to=${(row) => link("requests", row.request_id, { row: row.id })}
      mark=${(row) => `${fresh.has(row.id) ? "fresh" : ""} ${said(row) ? "asks" : ""}`} />
    ${page.data.length ? null : html`<p class="quiet">None among those looked at so far; older ones may match.</p>`}
    ${page.complete === false ? html`<p class="quiet">The last seconds are not searchable yet.</p>` : null}
    <${Pages} first=${!cursor} more=${page.next} onFirst=${() => go("requests", "", filters)}
      onMore=${() => go("requests", "", { ...filters, cursor: page.next })} />`;
}

function Filters({ filters }) {
  const form = useRef(null);
  const names = useNames();
  const shown = Object.keys(filters).some((name) => !["q", "cache", "order"].includes(name));
  const apply = (event) => {
    event?.preventDefault();
    const given = [...new FormData(form.current)].filter(([, value]) => String(value).trim());
    go("requests", "", Object.fromEntries(given));
  };
  const field = (name, label, more) => html`<label>${label}
    <input name=${name} defaultValue=${filters[name] ?? ""} onChange=${apply} ...${more} /></label>`;
  // the fields stay, and with them the focus
  useEffect(() => {
    for (const name of FILTERS) form.current.elements[name].value = filters[name] ?? "";
  }, [JSON.stringify(filters)]);
  return html`<form class="filters" role="search" ref=${form} onSubmit=${apply}>
    <input type="search" name="q" data-search="" aria-label="Words in the prompt or the answer"
      placeholder="Search prompts and answers" defaultValue=${filters.q ?? ""} />
    <${Choice} name="cache" label="Cache" all="any" value=${filters.cache} values=${["hit", "miss", "joined", "stale", "bypass", "only-if-cached"]} onChange=${apply} />
    <label>Order <select name="order" onChange=${apply}>
      ${Object.entries({ "": "newest first", ...ORDERS }).map(([value, words]) => html`<option key=${value} value=${value} selected=${value === (filters.order ?? "")}>${words}</option>`)}
    </select></label>
    <button type="submit">Search</button>
    <details open=${shown}><summary>More filters</summary><div class="fields">
      <${Choice} name="endpoint" label="Endpoint" all="any" value=${filters.endpoint} values=${ENDPOINTS} onChange=${apply} />
      ${field("status", "Status", { list: "known-statuses", pattern: "[0-9]{3}|error", placeholder: "200, or error" })}
      ${field("model", "Model", {})}
      ${field("user_id", "User", { list: "known-users" })}
      ${field("session_id", "Session", { list: "known-sessions" })}
      ${field("min_seconds", "Seconds at least", { type: "number", min: 0 })}
      ${field("min_tokens", "Tokens at least", { type: "number", min: 0 })}
      ${field("since", "From", { type: "datetime-local" })}
      ${field("until", "Until", { type: "datetime-local" })}
      <a class="button" href="#/requests">Clear</a>
    </div></details>
    <datalist id="known-statuses">${["error", "200", "400", "429", "500", "502", "503", "504"].map((each) => html`<option key=${each} value=${each} />`)}</datalist>
    <datalist id="known-users">${names.users.map((name) => html`<option key=${name} value=${name} />`)}</datalist>
    <datalist id="known-sessions">${names.sessions.map((name) => html`<option key=${name} value=${name} />`)}</datalist>
  </form>`;
}

export function Choice({ name, label, all, value = "", values, onChange }) {
  return html`<label>${label} <select name=${name} onChange=${onChange}>
    ${["", ...values].map((each) => html`<option key=${each} value=${each} selected=${each === value}>${each || all}</option>`)}
  </select></label>`;
}

/** What the chosen session or user adds up to. */
function Sum({ what, name }) {
  const { data } = usePoll(
    (signal) => (name ? operator(`/api/${what}/${encodeURIComponent(name)}`, { signal }) : Promise.resolve(null)), 0, [name]);
  if (!data) return null;
  return html`<p class="sum">${what === "users" ? "User" : "Session"} <b>${name}</b>: ${plural(data.requests, "request")}, ${percent(data.hit_rate)} hits,${" "}
    ${whole(data.completion_tokens)} tokens answered, ${seconds(data.saved_seconds)} saved.</p>`;
}

function useNames() {
  const { data } = usePoll(async (signal) => {
    const [users, sessions] = await Promise.all(["users", "sessions"].map((what) => operator(`/api/${what}?limit=100`, { signal })));
    return {
      users: [...new Set(users.data.map((row) => row.user))].filter(Boolean),
      sessions: [...new Set(sessions.data.map((row) => row.session))].filter(Boolean),
    };
  }, 0);
  return data ?? { users: [], sessions: [] };
}

/** Ids that were not there when the same was asked before. */
function useFresh(data) {
  const seen = useRef({ asked: "", ids: null });
  const [fresh, setFresh] = useState(new Set());
  useEffect(() => {
    if (!data) return;
    const ids = data.data.map((row) => row.id);
    const before = seen.current.asked === data.asked ? seen.current.ids : null;
    setFresh(new Set(before ? ids.filter((id) => !before.has(id)) : []));
    seen.current = { asked: data.asked, ids: new Set(ids) };
  }, [data]);
  return fresh;
}

/** Filters as the API takes them: times of the browser's zone become Unix seconds. */
function spoken(filters) {
  const moment = (text) => (text ? new Date(text).valueOf() / 1000 : undefined);
  return { ...filters, since: moment(filters.since), until: moment(filters.until) };
}

/** What a request asks, in a line; where that cannot be read, what it went to. */
function said(row) {
  return row.preview || (row.endpoint === "other" ? `${row.method} ${row.path}` : "");
}

function tokens(row) {
  if (row.prompt_tokens === null && row.completion_tokens === null) return few(null);
  return `${whole(row.prompt_tokens)} → ${whole(row.completion_tokens)}`;
}
