// One job: how far it is, what failed, its results; cancelling it, or having it tried again.

import { caller, callerDocument, failure, operator } from "../lib/api.js";
import { plural, seconds, whole } from "../lib/format.js";
import { html, useState } from "../lib/html.js";
import { usePoll } from "../lib/poll.js";
import { link } from "../lib/route.js";
import { Facts } from "../parts/facts.js";
import { JobMark, Progress, Time } from "../parts/marks.js";
import { Problem, Waiting, tell } from "../parts/notes.js";
import { Table } from "../parts/table.js";
import { counts } from "./jobs.js";

const OVER = new Set(["completed", "failed", "cancelled", "expired"]);

export function Job({ id }) {
  const path = `/admin/jobs/${encodeURIComponent(id)}`;
  const { data, error, reload } = usePoll((signal) => operator(`${path}?errors=200`, { signal }), 1, [id]);
  return html`<p class="back"><a href="#/jobs">Jobs</a></p>
    <div class="title"><h1>Job</h1>${data ? html`<${JobMark} status=${data.status} />` : null}</div>
    <${Problem} error=${error} retry=${reload} />
    ${data ? html`<${Shown} job=${data} path=${path} reload=${reload} />` : error ? null : html`<${Waiting} />`}`;
}

function Shown({ job, path, reload }) {
  return html`<div class="doing large"><${Progress} progress=${job.progress} label="progress" />
      <span>${counts(job.progress)}</span></div>
    <${Actions} job=${job} path=${path} reload=${reload} />
    ${job.error ? html`<p class="problem">${job.error.message || job.error.code}</p>` : null}
    <${Facts} facts=${facts(job)} />
    <${Errors} job=${job} />`;
}

function Actions({ job, path, reload }) {
  const [error, setError] = useState(null);
  const act = (what, done) => async () => {
    setError(null);
    try {
      await what();
      if (done) tell(done);
      reload();
    } catch (failed) {
      setError(failed);
    }
  };
  const post = (verb) => () => operator(`${path}/${verb}`, { method: "POST" });
  const over = OVER.has(job.status);
  const undone = job.progress.total > job.progress.completed;
  return html`<div class="actions left">
      ${over ? null : html`<button class="danger" disabled=${job.status === "cancelling"} onClick=${act(post("cancel"), "The job is being cancelled.")}>Cancel</button>`}
      ${over && undone ? html`<button onClick=${act(post("retry"), "The job is tried again.")}>Retry what is not completed</button>` : null}
      ${over && job.kind === "batch" ? html`<button onClick=${act(() => download(job, "output_file_id", "output"))}>Download output</button>
        ${job.progress.failed ? html`<button onClick=${act(() => download(job, "error_file_id", "errors"))}>Download errors</button>` : null}` : null}
      ${over && job.kind === "task" ? html`<button onClick=${act(() => downloadTask(job))}>Download results</button>` : null}
    </div><${Problem} error=${error} />`;
}

function Errors({ job }) {
  if (!job.progress.failed) return null;
  const columns = [
    { name: "Row", cell: (row) => row.label || whole(row.position) },
    { name: "Status", kind: "number", cell: (row) => row.status_code || "–" },
    { name: "Error", kind: "grow", cell: (row) => html`${row.message || row.code}` },
    { name: "Tries", kind: "number wide", cell: (row) => whole(row.attempts) },
  ];
  return html`<section aria-labelledby="errors"><h2 id="errors">Errors by row</h2>
    <${Table} caption="Calls that failed" columns=${columns} rows=${job.errors} id=${(row) => row.position}
      to=${(row) => (row.request_id ? link("requests", row.request_id) : undefined)} />
    ${job.errors.length < job.progress.failed ? html`<p class="quiet">The first ${plural(job.errors.length, "row")} of ${whole(job.progress.failed)}.</p>` : null}
  </section>`;
}

/** A batch's file. Files belong to who asked for the batch: with API keys, the key of the view "Try it" must be theirs. */
async function download(job, member, name) {
  const batch = await callerDocument(`/v1/batches/${encodeURIComponent(job.id)}`);
  if (!batch[member]) throw new Error(`This batch has no ${name}.`);
  const answer = await caller(`/v1/files/${encodeURIComponent(batch[member])}/content`);
  if (!answer.ok) throw await failure(answer);
  save(await answer.blob(), `${job.id}-${name}.jsonl`);
}

async function downloadTask(job) {
  const lines = [];
  let cursor;
  do {
    const more = cursor ? `&cursor=${encodeURIComponent(cursor)}` : "";
    const page = await callerDocument(`/api/tasks/${encodeURIComponent(job.id)}?limit=1000${more}`);
    lines.push(...page.results.map((result) => `${JSON.stringify(result)}\n`));
    cursor = page.next;
  } while (cursor);
  save(new Blob(lines, { type: "application/x-ndjson" }), `${job.id}.jsonl`);
}

function save(blob, name) {
  const url = URL.createObjectURL(blob);
  Object.assign(document.createElement("a"), { href: url, download: name }).click();
  // the browser has begun to read it by then
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

function facts(job) {
  return [
    ["Kind", job.kind],
    ["Id", html`<code>${job.id}</code>`],
    ["Path", job.path],
    ["Model", job.model],
    ["Caller", job.caller],
    ["User", job.user],
    ["Session", job.session && html`<a href=${link("requests", "", { session_id: job.session })}>${job.session}</a>`],
    ["Created", html`<${Time} at=${job.created_at} />`],
    ["Started", job.started_at && html`<${Time} at=${job.started_at} />`],
    ["Finished", job.finished_at && html`<${Time} at=${job.finished_at} />`],
    ["Took", job.finished_at && job.started_at ? seconds(job.finished_at - job.started_at) : null],
    ["Tries", whole(job.attempts)],
    ["Hits", whole(job.hits)],
    ["Tokens", `${whole(job.tokens.prompt)} → ${whole(job.tokens.completion)}`],
  ];
}
