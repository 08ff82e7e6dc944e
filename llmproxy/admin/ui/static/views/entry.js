// One entry of the cache, with its answer.

import { operator } from "../lib/api.js";
import { bytes, seconds, whole } from "../lib/format.js";
import { html, useState } from "../lib/html.js";
import { answered, asked } from "../lib/messages.js";
import { usePoll } from "../lib/poll.js";
import { pathOf } from "../lib/replay.js";
import { go, link } from "../lib/route.js";
import { Facts } from "../parts/facts.js";
import { Flush } from "../parts/flush.js";
import { Time } from "../parts/marks.js";
import { Empty, Problem, Waiting } from "../parts/notes.js";
import { Messages, Raw } from "../parts/talk.js";

export function Entry({ id }) {
  const { data, error, reload } = usePoll((signal) => operator(`/admin/cache/entries/${encodeURIComponent(id)}`, { signal }), 0, [id]);
  const gone = error?.status === 404;
  return html`<p class="back"><a href="#/cache">Cache</a></p><h1>Entry</h1>
    ${gone ? html`<${Empty} title="This entry is gone">It was flushed, evicted, or never kept.<//>` : html`<${Problem} error=${error} retry=${reload} />`}
    ${data ? html`<${Shown} entry=${data} />` : error ? null : html`<${Waiting} />`}`;
}

function Shown({ entry }) {
  const [flushing, setFlushing] = useState(false);
  const done = (flushed) => {
    setFlushing(false);
    if (flushed) go("cache");
  };
  return html`<div class="actions left"><button class="danger" onClick=${() => setFlushing(true)}>Flush this entry</button></div>
    <${Facts} facts=${facts(entry)} />
    <${Question} entry=${entry} />
    <section aria-labelledby="answer"><h2 id="answer">The answer</h2>
      <${Messages} choice=${true} messages=${answered(entry.document)} none="There are no messages in this answer." /></section>
    <details class="raws"><summary>The document</summary><${Raw} title="document" body=${entry.document} /></details>
    ${flushing ? html`<${Flush} selector=${{ key: entry.key }} onDone=${done} what="This entry, in every tier and every process." />` : null}`;
}

/** What was asked, from the newest request that had this answer. */
function Question({ entry }) {
  const path = entry.request_id && `${pathOf(entry.request_id)}?row=${entry.exchange}`;
  const { data, error } = usePoll((signal) => (path ? operator(path, { signal }) : Promise.resolve(null)), 0, [path]);
  const messages = data ? asked(data.request.body) : [];
  return html`<section aria-labelledby="question"><h2 id="question">The question</h2>
    <${Problem} error=${error} />
    ${path && !data && !error ? html`<${Waiting} />` : html`<${Messages} choice=${true} messages=${messages}
      none="The history has no request that was answered with this, or does not keep its body." />`}
    ${path ? html`<p class="small"><a href=${link("requests", entry.request_id, { row: entry.exchange })}>The newest request that had this answer</a></p>` : null}
  </section>`;
}

function facts(entry) {
  return [
    ["Key", html`<code>${entry.key}</code>`],
    ["Model", entry.model],
    ["Endpoint", entry.endpoint],
    ["Namespace", entry.namespace],
    ["Tags", entry.tags.length ? entry.tags.map((tag) => html`<span key=${tag} class="tag">${tag}</span>`) : null],
    ["Hits so far", entry.hits === null ? null : whole(entry.hits)],
    ["Last used", html`<${Time} at=${entry.last_used} relative=${true} />`],
    ["Stored", html`<${Time} at=${entry.created} />`],
    ["Until", html`<${Time} at=${entry.expires} />`],
    ["Size", bytes(entry.bytes)],
    ["Came as", entry.streamed ? "a stream" : "one document"],
    ["It took", seconds(entry.upstream_seconds)],
    ["Tokens", `${whole(entry.prompt_tokens)} → ${whole(entry.completion_tokens)}`],
  ];
}
