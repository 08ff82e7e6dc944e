// A small chat through the proxy, which says what the cache made of it.

import { caller, failure, remembered } from "../lib/api.js";
import { seconds, whole } from "../lib/format.js";
import { html, useEffect, useRef, useState } from "../lib/html.js";
import { usePoll } from "../lib/poll.js";
import { link } from "../lib/route.js";
import { events } from "../lib/sse.js";
import { CacheMark } from "../parts/marks.js";
import { Empty, Problem } from "../parts/notes.js";
import { Message } from "../parts/talk.js";

export function Try() {
  const [keys, setKeys] = useState(0);
  const models = usePoll((signal) => listed({ signal }), 0, [keys]);
  const names = models.data?.names ?? [];
  const [chosen, setChosen] = useState("");
  const [limit, setLimit] = useState("128");
  const [turns, setTurns] = useState([]);
  const [busy, setBusy] = useState(false);
  const running = useRef(null);
  useEffect(() => () => running.current?.abort(), []);
  const model = chosen || models.data?.first || "";

  const ask = async (before, text) => {
    const turn = { question: text, answer: "", thought: "", told: null, error: null };
    const show = () => setTurns([...before, { ...turn }]);
    show();
    setBusy(true);
    running.current = new AbortController();
    try {
      await answer(turn, body(before, text, model, Number(limit) || 128), running.current.signal, show);
    } catch (error) {
      turn.error = error.name === "AbortError" ? new Error("Stopped.") : error;
    }
    show();
    setBusy(false);
  };
  return html`<div class="title"><h1>Try it</h1>
      ${turns.length ? html`<button disabled=${busy} onClick=${() => setTurns([])}>New chat</button>` : null}</div>
    <${Settings} names=${names} model=${model} onModel=${setChosen} limit=${limit} onLimit=${setLimit} error=${models.error} onKey=${() => setKeys(keys + 1)} />
    <${Problem} error=${models.error} retry=${models.reload} />
    ${turns.length ? html`<${Turns} turns=${turns} busy=${busy} again=${(n) => ask(turns.slice(0, n), turns[n].question)} />`
      : html`<${Empty} title="Ask something, then ask it again">The second time the answer comes from the cache.<//>`}
    <${Ask} busy=${busy} ready=${model !== ""} onAsk=${(text) => ask(turns, text)} onStop=${() => running.current?.abort()} />`;
}

/** The models there are, and the one that is taken first: the list may begin with one that only makes embeddings. */
async function listed(options) {
  const heard = await caller("/v1/models", options);
  if (!heard.ok) throw await failure(heard);
  const { data } = await heard.json();
  return { names: data.map((model) => model.id), first: decodeURIComponent(heard.headers.get("x-llmproxy-default-model") ?? "") };
}

function Settings({ names, model, onModel, limit, onLimit, error, onKey }) {
  const keyed = error?.status === 401 || remembered.key !== "";
  const enter = (event) => {
    remembered.key = event.target.value;
    onKey();
  };
  return html`<div class="filters">
    <label>Model <select value=${model} onChange=${(event) => onModel(event.target.value)}>
      ${model === "" ? html`<option value="" selected></option>` : null}
      ${names.map((name) => html`<option key=${name} value=${name} selected=${name === model}>${name}</option>`)}
    </select></label>
    <label>Tokens at most <input class="short" type="number" min="1" max="100000" value=${limit}
      onInput=${(event) => onLimit(event.target.value)} /></label>
    ${keyed ? html`<label>API key <input type="password" autocomplete="off" defaultValue=${remembered.key} onChange=${enter} /></label>` : null}
  </div>`;
}

function Turns({ turns, busy, again }) {
  const end = useRef(null);
  useEffect(() => end.current?.scrollIntoView({ block: "nearest" }), [turns]);
  return html`<ol class="talk chat" aria-label="Conversation">
    ${turns.map((turn, n) => html`<${Message} key=${`q${n}`} message=${{ role: "user", text: turn.question, kind: "text" }} />
      <${Answer} key=${`a${n}`} turn=${turn} last=${n === turns.length - 1} busy=${busy} again=${() => again(n)} />`)}
    <li ref=${end} aria-hidden="true" class="end"></li></ol>`;
}

function Answer({ turn, last, busy, again }) {
  const { told, error } = turn;
  const message = { role: "assistant", text: turn.answer || (turn.thought ? turn.thought : last && busy ? "…" : ""), kind: "text" };
  return html`<${Message} message=${message}>
    <${Problem} error=${error} />
    ${told ? html`<p class="told-of"><${CacheMark} cache=${told.cache} />
      <span>${seconds(told.total)}</span>
      ${told.first === null ? null : html`<span>first token ${seconds(told.first)}</span>`}
      ${told.usage ? html`<span>${whole(told.usage.prompt_tokens)} → ${whole(told.usage.completion_tokens)} tokens</span>` : null}
      <a href=${link("requests", told.id)}>details</a></p>` : null}
    ${!busy && (told || error) ? html`<button class="plain" onClick=${again}>Ask again</button>` : null}
  <//>`;
}

function Ask({ busy, ready, onAsk, onStop }) {
  const [text, setText] = useState("");
  const send = (event) => {
    event.preventDefault();
    if (!text.trim() || busy || !ready) return;
    onAsk(text.trim());
    setText("");
  };
  const pressed = (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) send(event);
  };
  return html`<form class="ask" onSubmit=${send}>
    <textarea rows="2" data-search="" aria-label="Your message" placeholder="Why is the sky blue?" value=${text}
      onInput=${(event) => setText(event.target.value)} onKeyDown=${pressed}></textarea>
    ${busy ? html`<button type="button" onClick=${onStop}>Stop</button>`
      : html`<button class="main" type="submit" disabled=${!text.trim() || !ready}>Ask</button>`}
  </form>`;
}

function body(before, text, model, limit) {
  const said = before.filter((turn) => turn.answer).flatMap((turn) => [
    { role: "user", content: turn.question },
    { role: "assistant", content: turn.answer },
  ]);
  return {
    model,
    messages: [...said, { role: "user", content: text }],
    max_tokens: limit,
    stream: true,
    stream_options: { include_usage: true },
  };
}

/** Fills `turn` while its answer comes in. */
async function answer(turn, document, signal, show) {
  const began = performance.now();
  const since = () => (performance.now() - began) / 1000;
  const headers = { "content-type": "application/json", "x-llmproxy-session": "try-it" };
  const got = await caller("/v1/chat/completions", { method: "POST", headers, body: JSON.stringify(document), signal });
  if (!got.ok) throw await failure(got);
  const told = { cache: (got.headers.get("x-cache") ?? "").toLowerCase(), id: got.headers.get("x-request-id") ?? "", first: null, usage: null };
  await events(got, (frame) => {
    if (frame.error) throw new Error(String(frame.error.message ?? "The answer broke off."));
    const delta = frame.choices?.[0]?.delta ?? {};
    turn.answer += delta.content ?? "";
    turn.thought += delta.reasoning_content ?? "";
    if (told.first === null && (delta.content || delta.reasoning_content)) told.first = since();
    told.usage = frame.usage ?? told.usage;
    show();
  });
  turn.told = { ...told, total: since() };
}
