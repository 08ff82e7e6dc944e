// Background jobs and how far they are.

import { operator, query as joined } from "../lib/api.js";
import { plural, whole } from "../lib/format.js";
import { html } from "../lib/html.js";
import { usePoll } from "../lib/poll.js";
import { go, link } from "../lib/route.js";
import { JobMark, Progress, Time } from "../parts/marks.js";
import { Empty, Problem, Waiting } from "../parts/notes.js";
import { Pages, Table } from "../parts/table.js";
import { Choice } from "./requests.js";

const STATUSES = ["pending", "running", "finalizing", "cancelling", "completed", "failed", "cancelled", "expired"];
const KINDS = ["task", "batch", "response"];

const COLUMNS = [
  { name: "Job", cell: (job) => html`<span class="jobname">${job.kind} <code>${job.id.slice(-8)}</code></span>` },
  { name: "Status", cell: (job) => html`<${JobMark} status=${job.status} />` },
  { name: "Progress", kind: "grow", cell: (job) => html`<div class="doing"><${Progress} progress=${job.progress} label=${`progress of ${job.id}`} />
    <span class="small">${counts(job.progress)}</span></div>` },
  { name: "Model", kind: "wide clip", cell: (job) => job.model },
  { name: "Hits", kind: "number wide", cell: (job) => whole(job.hits) },
  { name: "Tokens", kind: "number wider", cell: (job) => whole(job.tokens.completion) },
  { name: "Created", kind: "wide", cell: (job) => html`<${Time} at=${job.created_at} relative=${true} />` },
];

export function Jobs({ query }) {
  const chosen = Object.fromEntries(["kind", "status"].filter((name) => query.has(name)).map((name) => [name, query.get(name)]));
  const cursor = query.get("cursor") ?? undefined;
  const asked = joined({ ...chosen, limit: 25, cursor });
  const { data, error, reload } = usePoll((signal) => operator(`/admin/jobs?${asked}`, { signal }), 1.5, [asked]);
  const apply = (event) => go("jobs", "", Object.fromEntries([...new FormData(event.target.form)].filter(([, value]) => value)));
  return html`<h1>Jobs</h1>
    <form class="filters" aria-label="Which jobs">
      <${Choice} name="kind" label="Kind" all="any" value=${chosen.kind} values=${KINDS} onChange=${apply} />
      <${Choice} name="status" label="Status" all="any" value=${chosen.status} values=${STATUSES} onChange=${apply} />
    </form>
    <${Problem} error=${error} retry=${reload} />
    ${data ? html`<${Rows} page=${data} chosen=${chosen} cursor=${cursor} />` : error ? null : html`<${Waiting} />`}`;
}

function Rows({ page, chosen, cursor }) {
  if (!page.data.length) {
    return Object.keys(chosen).length
      ? html`<${Empty} title="No such job">Choose another kind or status.<//>`
      : html`<${Empty} title="No jobs yet">Batches, tasks and Responses in the background show up here.<//>`;
  }
  return html`<${Table} caption="Jobs, the newest first" columns=${COLUMNS} rows=${page.data} id=${(job) => job.id} to=${(job) => link("jobs", job.id)} />
    <${Pages} first=${!cursor} more=${page.next} onFirst=${() => go("jobs", "", chosen)} onMore=${() => go("jobs", "", { ...chosen, cursor: page.next })} />`;
}

export function counts({ total, completed, failed }) {
  return `${whole(completed)} of ${whole(total)}${failed ? `, ${plural(failed, "failed", "failed")}` : ""}`;
}
