// One request: what was said, where the time went, why it was a hit or not, and the same once more.

import { operator } from "../lib/api.js";
import { few, seconds, whole } from "../lib/format.js";
import { html, useState } from "../lib/html.js";
import { answered, asked } from "../lib/messages.js";
import { usePoll } from "../lib/poll.js";
import { command, pathOf, recorded, replayed } from "../lib/replay.js";
import { link } from "../lib/route.js";
import { Facts } from "../parts/facts.js";
import { Flush } from "../parts/flush.js";
import { CacheMark, StatusMark, Time } from "../parts/marks.js";
import { Problem, Waiting, tell } from "../parts/notes.js";
import { Messages, Raw, copyText } from "../parts/talk.js";
import { Waterfall } from "../parts/waterfall.js";
import { Why } from "../parts/why.js";

export function Request({ id, query }) {
  const row = query.get("row") ?? undefined;
  const { data, error, reload } = usePoll((signal) => recorded(id, row, signal), 0, [id, row]);
  return html`<p class="back"><a href="#/requests">Requests</a></p>
    <div class="title"><h1>Request</h1>${data ? html`<${CacheMark} cache=${data.record.cache} />` : null}</div>
    <${Problem} error=${error} retry=${reload} />
    ${data ? html`<${Shown} ...${data} />` : error ? null : html`<${Waiting} />`}`;
}

function Shown({ record, body }) {
  return html`<${Actions} record=${record} body=${body} />
    <${Facts} facts=${facts(record)} />
    <${ReplayTimes} record=${record} />
    ${record.error ? html`<p class="problem">${record.error}</p>` : null}
    <div class="columns">
      <section aria-labelledby="said"><h2 id="said">What was said</h2>
        <${Messages} choice=${true} messages=${[...asked(record.request.body), ...answered(record.response.body)]}
          none="There is nothing to read: the bodies are not kept, were cut, or have no messages." />
      </section>
      <div>
        <section aria-labelledby="why"><h2 id="why">Why</h2><${Explained} record=${record} /></section>
        <section aria-labelledby="time"><h2 id="time">Where the time went</h2>
          <${Waterfall} phases=${record.phases} total=${record.total_seconds} />
        </section>
      </div>
    </div>
    <details class="raws"><summary>Bodies as they were</summary><div class="columns">
      <${Raw} title="request" body=${record.request.body} cut=${record.request.cut} />
      <${Raw} title="response" body=${record.response.body} cut=${record.response.cut} />
    </div></details>`;
}

function Actions({ record, body }) {
  const [again, setAgain] = useState(null);
  const [error, setError] = useState(null);
  const [busy, setBusy] = useState(false);
  const [flushing, setFlushing] = useState(false);
  const obstacle = obstacleOf(record, body);
  const replay = async () => {
    setBusy(true);
    setError(null);
    try {
      const found = await replayed(record, body);
      setAgain(found);
      tell(`Answered again in ${seconds(found.seconds)}: ${found.cache || "no word of the cache"}.`);
    } catch (failed) {
      setError(failed);
    }
    setBusy(false);
  };
  return html`<div class="actions left">
      <button class="main" disabled=${obstacle !== "" || busy} onClick=${replay}>${busy ? "Asking…" : "Replay"}</button>
      ${obstacle ? null : html`<button onClick=${() => copyText(command(record, body), "command")}>Copy as curl</button>`}
      ${record.key ? html`<a class="button" href=${link("cache", record.key)}>Cache entry</a>
        <button onClick=${() => setFlushing(true)}>Flush this entry</button>` : null}
      ${again ? html`<span class="again"><${CacheMark} cache=${again.cache} /> in ${seconds(again.seconds)},
        <a href=${link("requests", again.requestId)}>see it</a></span>` : null}
      ${obstacle ? html`<span class="quiet">${obstacle}</span>` : null}
    </div>
    <${Problem} error=${error} />
    ${flushing ? html`<${Flush} selector=${{ key: record.key }} onDone=${() => setFlushing(false)}
      what="The answer to this request, in every tier and every process." />` : null}`;
}

/** Why a request cannot be sent again, "" where it can. */
function obstacleOf(record, body) {
  if (record.method !== "POST" || record.endpoint === "other") return "Only questions to a model can be sent again.";
  if (body === null) return "Its body is not kept whole, so it cannot be sent again.";
  if (record.query === null) return "The query of its URL may hold a secret and is not kept, so it cannot be sent again.";
  return "";
}

function Explained({ record }) {
  const { data, error } = usePoll((signal) => operator(`${pathOf(record.request_id, "/explain")}?row=${record.id}`, { signal }), 0, [record.id]);
  if (error) return html`<${Problem} error=${error} />`;
  return data ? html`<${Why} told=${data} />` : html`<${Waiting} what="Comparing" />`;
}

/** Of an answer that was there already: what it had taken when it was made. */
function ReplayTimes({ record }) {
  if (!FROM_CACHE.has(record.cache) || record.upstream_seconds === null) return null;
  const shared = record.cache === "joined";
  return html`<p class="sum">${shared ? "The answer that it shared" : "The answer that it replays"} had taken the model server${" "}
    <b>${seconds(record.upstream_seconds)}</b>; this request took <b>${seconds(record.total_seconds)}</b>${
    !shared && record.total_seconds > 0 ? html`, ${few(record.upstream_seconds / record.total_seconds)} times less` : null}.</p>`;
}

const FROM_CACHE = new Set(["hit", "stale", "joined"]);

function facts(record) {
  const isReplay = FROM_CACHE.has(record.cache);
  const { prompt_tokens: sent, completion_tokens: got } = record;
  return [
    ["Status", html`<${StatusMark} status=${record.status} cache=${record.cache} />`],
    ["Time", html`<${Time} at=${record.created_at} />`],
    ["Total", seconds(record.total_seconds)],
    ["First token", seconds(record.first_token_seconds)],
    ["Waited for a turn", seconds(record.queue_seconds)],
    ["Model server's time", isReplay || record.upstream_seconds === null ? null : seconds(record.upstream_seconds)],
    ["Tokens", sent === null && got === null ? null : `${whole(sent)} → ${whole(got)}`],
    ["Endpoint", `${record.endpoint}${record.stream ? ", streamed" : ""}`],
    ["Path", `${record.method} ${record.path}${record.query === null ? "?…" : record.query && `?${record.query}`}`],
    ["Model", record.model],
    ["Model server", record.upstream.replace(/^https?:\/\//, "")],
    ["User", record.user && html`<a href=${link("requests", "", { user_id: record.user })}>${record.user}</a>`],
    ["Session", record.session && html`<a href=${link("requests", "", { session_id: record.session })}>${record.session}</a>`],
    ["Namespace", record.namespace],
    ["Caller", record.caller],
    ["Request id", html`<code>${record.request_id}</code>`],
    ["Key", record.key && html`<code>${record.key.slice(0, 16)}…</code>`],
  ];
}
