// Who asks, and in which sessions: with what their requests add up to.

import { operator, query as joined } from "../lib/api.js";
import { percent, seconds, whole } from "../lib/format.js";
import { html } from "../lib/html.js";
import { usePoll } from "../lib/poll.js";
import { go, link } from "../lib/route.js";
import { Share, Time } from "../parts/marks.js";
import { Empty, Problem, Waiting } from "../parts/notes.js";
import { Pages, Table } from "../parts/table.js";

const TOTALS = [
  { name: "Requests", kind: "number", cell: (row) => whole(row.requests) },
  { name: "Hit rate", cell: (row) => html`<${Share} value=${row.hit_rate} label=${`hit rate ${percent(row.hit_rate)}`} />` },
  { name: "Errors", kind: "number wide", cell: (row) => whole(row.errors) },
  { name: "Tokens", kind: "number wide", cell: (row) => `${whole(row.prompt_tokens)} → ${whole(row.completion_tokens)}` },
  { name: "Time saved", kind: "number wide", cell: (row) => seconds(row.saved_seconds) },
  { name: "First seen", kind: "wider", cell: (row) => html`<${Time} at=${row.first_seen} />` },
  { name: "Last seen", kind: "wide", cell: (row) => html`<${Time} at=${row.last_seen} relative=${true} />` },
];
const USER = { name: "User", kind: "clip", cell: (row) => row.user || "(unnamed)" };
const SESSION = { name: "Session", kind: "clip", cell: (row) => row.session };

export function Users({ query }) {
  return html`<${People} title="Users" view="users" query=${query} columns=${[USER, ...TOTALS]} id=${(row) => row.user}
    to=${(row) => link("requests", "", { user_id: row.user })}>
    A request names its user with X-LLMProxy-User or the body's member “user”; else it is who the API key belongs to.<//>`;
}

export function Sessions({ query }) {
  return html`<${People} title="Sessions" view="sessions" query=${query} columns=${[SESSION, { ...USER, kind: "clip wide" }, ...TOTALS]}
    id=${(row) => `${row.session} ${row.user}`} to=${(row) => link("requests", "", { session_id: row.session })}>
    A request names its session with X-LLMProxy-Session.<//>`;
}

function People({ title, view, query, columns, id, to, children }) {
  const cursor = query.get("cursor") ?? undefined;
  const asked = joined({ limit: 50, cursor });
  const { data, error, reload } = usePoll((signal) => operator(`/api/${view}?${asked}`, { signal }), cursor ? 0 : 4, [asked]);
  return html`<h1>${title}</h1>
    <p class="quiet">${children}</p>
    <${Problem} error=${error} retry=${reload} />
    ${data === null ? (error ? null : html`<${Waiting} />`) : data.data.length
      ? html`<${Table} caption=${`${title}, the last seen first`} columns=${columns} rows=${data.data} id=${id} to=${to} />
        <${Pages} first=${!cursor} more=${data.next} onFirst=${() => go(view)} onMore=${() => go(view, "", { cursor: data.next })} />`
      : html`<${Empty} title=${`No ${view} yet`}>They show up with the first requests.<//>`}`;
}
