// A small chat through the proxy, which says what the cache made of it.

import { caller, failure, remembered } from "../lib/api.js";
import { few, seconds, whole } from "../lib/format.js";
import { html, useEffect, useRef, useState } from "../lib/html.js";
import { usePoll } from "../lib/poll.js";
import { link } from "../lib/route.js";
import { events } from "../lib/sse.js";
import { CacheMark } from "../parts/marks.js";
import { Markdown } from "../parts/markdown.js";
import { Empty, Problem } from "../parts/notes.js";
import { Message } from "../parts/talk.js";

const STORAGE = "llmproxy.try";
const SETTINGS = { model: "", limit: "128", temperature: "", system: "" };

/** `turns` are {question, body, answers}: `body` is the request to the last byte, `answers` all it was given, in order. */
export function Try() {
  const [keys, setKeys] = useState(0);
  const models = usePoll((signal) => listed({ signal }), 0, [keys]);
  const names = models.data?.names ?? [];
  const [stored] = useState(readChat);
  const [settings, setSettings] = useState({ ...SETTINGS, ...stored.settings });
  const [turns, setTurns] = useState(stored.turns ?? []);
  const [busy, setBusy] = useState(false);
  const running = useRef(null);
  useEffect(() => () => running.current?.abort(), []);
  useEffect(() => {
    if (!busy) saveChat({ settings, turns });
  }, [settings, turns, busy]);
  const model = settings.model || models.data?.first || "";

  /** Sends `turn`, the one after `before`, and adds what comes to its answers. */
  const send = async (before, turn) => {
    const answer = { text: "", thought: "", outcome: null, failure: "" };
    const show = () => setTurns([...before, { ...turn, answers: [...turn.answers, { ...answer }] }]);
    show();
    setBusy(true);
    running.current = new AbortController();
    try {
      await receive(answer, turn.body, running.current.signal, show);
    } catch (error) {
      answer.failure = error.name === "AbortError" ? "Stopped." : error.message;
    }
    show();
    setBusy(false);
  };
  const ask = (text) => send(turns, { question: text, body: JSON.stringify(request(turns, text, { ...settings, model })), answers: [] });
  const again = (n) => send(turns.slice(0, n), { ...turns[n], answers: turns[n].answers.filter((answer) => !answer.failure) });
  return html`<div class="title"><h1>Try it</h1>
      ${turns.length ? html`<button disabled=${busy} onClick=${() => setTurns([])}>New chat</button>` : null}</div>
    <${Settings} names=${names} settings=${{ ...settings, model }} onSettings=${(changes) => setSettings({ ...settings, ...changes })}
      error=${models.error} onKey=${() => setKeys(keys + 1)} />
    <${Problem} error=${models.error} retry=${models.reload} />
    ${models.data && !names.length ? html`<p class="quiet">No model that makes text was found.</p>` : null}
    ${turns.length ? html`<${Turns} turns=${turns} busy=${busy} again=${again} />`
      : html`<${Empty} title="Ask something, then ask it again">The second time the answer comes from the cache.<//>`}
    <${Ask} busy=${busy} ready=${model !== ""} onAsk=${ask} onStop=${() => running.current?.abort()} />`;
}

/** The models that make text, and the one that is taken first. */
async function listed(options) {
  const response = await caller("/v1/models", options);
  if (!response.ok) throw await failure(response);
  const { data } = await response.json();
  const name = (header) => decodeURIComponent(response.headers.get(header) ?? "");
  const embedding = new Set((response.headers.get("x-llmproxy-embedding-models") ?? "").split(",").map(decodeURIComponent));
  return { names: data.map((model) => model.id).filter((id) => !embedding.has(id)), first: name("x-llmproxy-default-model") };
}

function Settings({ names, settings, onSettings, error, onKey }) {
  const keyed = error?.status === 401 || remembered.key !== "";
  const enter = (event) => {
    remembered.key = event.target.value;
    onKey();
  };
  const set = (name) => (event) => onSettings({ [name]: event.target.value });
  const offered = settings.model && !names.includes(settings.model) ? [settings.model, ...names] : names;
  return html`<div class="filters">
    <label>Model <select value=${settings.model} onChange=${set("model")}>
      ${settings.model === "" ? html`<option value="" selected></option>` : null}
      ${offered.map((name) => html`<option key=${name} value=${name} selected=${name === settings.model}>${name}</option>`)}
    </select></label>
    <label>Tokens at most <input class="short" type="number" min="1" max="100000" value=${settings.limit} onInput=${set("limit")} /></label>
    <label>Temperature <input class="short" type="number" min="0" max="2" step="0.1" placeholder="the model's" value=${settings.temperature}
      onInput=${set("temperature")} /></label>
    ${keyed ? html`<label>API key <input type="password" autocomplete="off" defaultValue=${remembered.key} onChange=${enter} /></label>` : null}
    <label class="system">System prompt <textarea rows="1" placeholder="none" value=${settings.system} onInput=${set("system")}></textarea></label>
  </div>`;
}

function Turns({ turns, busy, again }) {
  const end = useRef(null);
  useEffect(() => end.current?.scrollIntoView({ block: "nearest" }), [turns]);
  return html`<ol class="talk chat" aria-label="Conversation">
    ${turns.map((turn, n) => html`<${Message} key=${`q${n}`} message=${{ role: "user", text: turn.question, kind: "text" }} plain=${true} />
      <${Answers} key=${`a${n}`} turn=${turn} busy=${busy} last=${n === turns.length - 1} again=${() => again(n)} />`)}
    <li ref=${end} aria-hidden="true" class="end"></li></ol>`;
}

/** The first answer and the newest, side by side. */
function Answers({ turn, busy, last, again }) {
  const { answers } = turn;
  const sides = answers.length > 1 ? [answers[0], answers.at(-1)] : answers;
  const [first, newest] = sides.map((answer) => answer?.outcome?.total);
  return html`<li class="answers">
    <div class="sides">${sides.map((answer, n) => html`<${Answer} key=${n} answer=${answer}
      number=${n ? answers.length : 1} waits=${busy && last && n === sides.length - 1} />`)}</div>
    ${first && newest ? html`<p class="sum">${newest < first ? html`<b>${few(first / newest)}×</b> as fast as the first time.` : "Not faster than the first time."}
      ${same(sides) ? " The answer is the same." : " The answer is another one."}</p>` : null}
    ${busy ? null : html`<button class="plain" onClick=${again}>Ask again</button>`}
  </li>`;
}

const same = ([one, other]) => one.text === other.text;

function Answer({ answer, number, waits }) {
  const { outcome } = answer;
  const text = answer.text || answer.thought || (waits ? "…" : "");
  return html`<div class="message from-assistant">
    <div class="who">${number === 1 ? "first time" : `time ${number}`}</div>
    ${text ? html`<${Markdown} text=${text} />` : null}
    <${Problem} error=${answer.failure ? { message: answer.failure } : null} />
    ${outcome ? html`<p class="told-of"><${CacheMark} cache=${outcome.cache} />
      <span>${seconds(outcome.total)}</span>
      ${outcome.first === null ? null : html`<span>first token ${seconds(outcome.first)}</span>`}
      ${outcome.usage ? html`<span>${whole(outcome.usage.prompt_tokens)} → ${whole(outcome.usage.completion_tokens)} tokens</span>` : null}
      <a href=${link("requests", outcome.id)}>details</a></p>` : null}
  </div>`;
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

function request(before, text, { model, limit, temperature, system }) {
  const turnsBefore = before.filter((turn) => turn.answers[0]?.text).flatMap((turn) => [
    { role: "user", content: turn.question },
    { role: "assistant", content: turn.answers[0].text },
  ]);
  return {
    model,
    messages: [...(system.trim() ? [{ role: "system", content: system.trim() }] : []), ...turnsBefore, { role: "user", content: text }],
    max_tokens: Number(limit) || 128,
    ...(temperature === "" ? {} : { temperature: Number(temperature) }),
    stream: true,
    stream_options: { include_usage: true },
  };
}

/** Fills `answer` while it comes in. */
async function receive(answer, body, signal, show) {
  const began = performance.now();
  const since = () => (performance.now() - began) / 1000;
  const headers = { "content-type": "application/json", "x-llmproxy-session": "try-it" };
  const response = await caller("/v1/chat/completions", { method: "POST", headers, body, signal });
  if (!response.ok) throw await failure(response);
  const outcome = { cache: (response.headers.get("x-cache") ?? "").toLowerCase(), id: response.headers.get("x-request-id") ?? "", first: null, usage: null };
  await events(response, (frame) => {
    if (frame.error) throw new Error(String(frame.error.message ?? "The answer broke off."));
    const delta = frame.choices?.[0]?.delta ?? {};
    answer.text += delta.content ?? "";
    answer.thought += delta.reasoning_content ?? "";
    if (outcome.first === null && (delta.content || delta.reasoning_content)) outcome.first = since();
    outcome.usage = frame.usage ?? outcome.usage;
    show();
  });
  answer.outcome = { ...outcome, total: since() };
}

/** The chat of this tab, as it was before the page was loaded again. */
function readChat() {
  try {
    return JSON.parse(sessionStorage.getItem(STORAGE)) ?? {};
  } catch {
    return {};
  }
}

function saveChat(chat) {
  try {
    sessionStorage.setItem(STORAGE, JSON.stringify(chat));
  } catch {
    // longer than the browser keeps: it is only gone after the next load
  }
}
