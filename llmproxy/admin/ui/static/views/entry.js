// One entry of the cache, with its answer.

import { operator } from "../lib/api.js";
import { bytes, seconds, whole } from "../lib/format.js";
import { html, useState } from "../lib/html.js";
import { answered } from "../lib/messages.js";
import { usePoll } from "../lib/poll.js";
import { go } from "../lib/route.js";
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
    <section aria-labelledby="answer"><h2 id="answer">The answer</h2>
      <${Messages} messages=${answered(entry.document)} none="There are no messages in this answer." /></section>
    <details class="raws"><summary>The document</summary><${Raw} title="document" body=${entry.document} /></details>
    ${flushing ? html`<${Flush} selector=${{ key: entry.key }} onDone=${done} what="This entry, in every tier and every process." />` : null}`;
}

function facts(entry) {
  return [
    ["Key", html`<code>${entry.key}</code>`],
    ["Model", entry.model],
    ["Endpoint", entry.endpoint],
    ["Namespace", entry.namespace],
    ["Tags", entry.tags.length ? entry.tags.map((tag) => html`<span key=${tag} class="tag">${tag}</span>`) : null],
    ["Stored", html`<${Time} at=${entry.created} />`],
    ["Until", html`<${Time} at=${entry.expires} />`],
    ["Size", bytes(entry.bytes)],
    ["Came as", entry.streamed ? "a stream" : "one document"],
    ["It took", seconds(entry.upstream_seconds)],
    ["Tokens", `${whole(entry.prompt_tokens)} → ${whole(entry.completion_tokens)}`],
  ];
}
