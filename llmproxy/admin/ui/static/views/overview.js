// What goes on now.

import { address, operator } from "../lib/api.js";
import { few, percent, plural, seconds, whole } from "../lib/format.js";
import { html, useState } from "../lib/html.js";
import { Live } from "../lib/live.js";
import { usePoll } from "../lib/poll.js";
import { link } from "../lib/route.js";
import { Chart, Legend } from "../parts/chart.js";
import { Latency } from "../parts/latency.js";
import { Share, StateMark } from "../parts/marks.js";
import { Empty, Problem, Waiting } from "../parts/notes.js";
import { Machine, Queue, Servers } from "../parts/standing.js";
import { Table } from "../parts/table.js";
import { ENDPOINTS } from "./requests.js";

const WINDOWS = { "5m": "5 minutes", "1h": "hour", "24h": "24 hours", "7d": "7 days" };
const KINDS = [
  { label: "hits", color: "--hit" },
  { label: "joined", color: "--joined" },
  { label: "misses", color: "--miss" },
  { label: "bypassed", color: "--idle" },
];

// how the figures name what has no model
const NO_MODEL = "none";

const live = new Live();

export function Overview() {
  const [window, setWindow] = useState("1h");
  const counted = usePoll(async (signal) => {
    const stats = await operator("/api/cache/stats", { signal });
    live.add(stats.since_start, Date.now() / 1000);
    return stats;
  }, 1);
  const standing = usePoll(async (signal) => {
    const health = await operator("/api/health", { signal });
    live.addQueue(health.queue, Date.now() / 1000);
    return health;
  }, 2);
  const fared = usePoll((signal) => operator(`/api/performance?window=${window}`, { signal }), 4, [window]);
  const error = counted.error ?? standing.error ?? fared.error;
  return html`<div class="title"><h1>Overview</h1>
      ${standing.data ? html`<${StateMark} state=${standing.data.status} />` : null}</div>
    <${Problem} error=${error?.status ? error : null} />
    ${counted.data ? html`<${Tiles} stats=${counted.data} fared=${fared.data} window=${window} />` : error ? null : html`<${Waiting} />`}
    <${Rates} />
    <div class="switches" role="group" aria-label="Window of the figures below">
      ${Object.entries(WINDOWS).map(([name, words]) => html`<button key=${name} aria-pressed=${name === window}
        onClick=${() => setWindow(name)}>${words}</button>`)}
    </div>
    <div class="panels">
      <section class="panel" aria-labelledby="latency"><h2 id="latency">Latency, hit against miss</h2>
        ${fared.data ? html`<${Latency} byCache=${fared.data.total.by_cache} />` : html`<${Waiting} />`}</section>
      <section class="panel" aria-labelledby="servers"><h2 id="servers">Model servers</h2>
        ${standing.data ? html`<${Servers} servers=${standing.data.upstreams} />` : html`<${Waiting} />`}</section>
      <section class="panel" aria-labelledby="queue"><h2 id="queue">Job queue</h2>
        ${standing.data ? html`<${Queue} queue=${standing.data.queue} past=${live.queue} />` : html`<${Waiting} />`}</section>
      <section class="panel" aria-labelledby="machine"><h2 id="machine">This machine</h2>
        ${fared.data ? html`<${Machine} now=${fared.data.now} tiers=${counted.data?.tiers} />` : html`<${Waiting} />`}</section>
    </div>
    <${Models} fared=${fared.data} window=${WINDOWS[window]} />`;
}

function Tiles({ stats, fared, window }) {
  const { all } = live.rate();
  const recent = stats.last_5_minutes;
  const [hit, miss] = ["hit", "miss"].map((word) => fared?.total.by_cache[word]?.duration_seconds?.p50);
  const [times, ...rows] = live.data;
  const sums = times.map((_, n) => rows.reduce((sum, row) => sum + (row[n] ?? 0), 0));
  const looked = recent.hits + recent.stale + recent.misses + recent.joins;
  return html`<div class="tiles">
    <${Tile} name="Requests a second" value=${few(all)} note="over the last 5 seconds">
      <${Chart} data=${[times, sums]} series=${[{ label: "requests", color: "--accent" }]} height=${44} span=${60} spark=${true}
        label="Requests a second in the last minute" /><//>
    <${Tile} name="Hit rate" value=${percent(recent.hit_rate)} note=${`of ${plural(looked, "request")} in 5 minutes`}>
      <${Meter} parts=${[["hit", recent.hits + recent.stale], ["joined", recent.joins], ["miss", recent.misses]]} /><//>
    <${Tile} name="Time saved" value=${seconds(stats.saved.upstream_seconds)} note="of the model servers, since start">
      <p class="small">${whole(stats.saved.prompt_tokens + stats.saved.completion_tokens)} tokens not computed again</p><//>
    <${Tile} name="A hit is" value=${hit && miss ? `${few(miss / hit)}×` : "–"} note=${hit && miss ? "as fast as a miss, by the median" : "no hits and misses to compare yet"}>
      <p class="small">${hit ? `${seconds(hit)} against ${seconds(miss)}` : `in the last ${WINDOWS[window]}`}</p><//>
  </div>`;
}

function Tile({ name, value, note, children }) {
  return html`<section class="tile"><h2>${name}</h2><p class="figure">${value}</p><p class="small">${note}</p>
    <div class="below">${children}</div></section>`;
}

function Meter({ parts }) {
  const sum = parts.reduce((total, [, count]) => total + count, 0);
  return html`<div class="meter" role="img" aria-label=${parts.map(([word, count]) => `${count} ${word}`).join(", ")}>
    ${parts.map(([word, count]) => html`<i key=${word} class=${word} style=${{ width: sum ? `${(100 * count) / sum}%` : 0 }}></i>`)}
  </div>`;
}

function Rates() {
  const { each, all } = live.rate();
  const series = KINDS.map((kind, n) => ({ ...kind, value: few(each[n]) }));
  return html`<section class="panel" aria-labelledby="rates"><div class="panelhead"><h2 id="rates">Requests a second</h2>
      <${Legend} series=${series} /></div>
    <${Chart} data=${live.data} series=${KINDS} stacked=${true} height=${190} format=${rate}
      label=${`Requests a second in the last 3 minutes; now ${few(all)}`} /></section>`;
}

/** The filters that show a row's requests. */
function requestsOf({ model, endpoint }) {
  return { model: model === NO_MODEL ? undefined : model, endpoint: ENDPOINTS.includes(endpoint) ? endpoint : undefined };
}

const rate = (value) => String(Number(value.toFixed(2)));

function Models({ fared, window }) {
  if (!fared) return null;
  if (!fared.models.length) {
    return html`<${Empty} title=${`No requests in the last ${window}`}><a href="#/try">Ask something here</a>, or point
      OPENAI_BASE_URL at ${address("/v1")}.<//>`;
  }
  const p50 = (row, word) => seconds(row.by_cache[word]?.duration_seconds?.p50);
  const columns = [
    { name: "Model", kind: "clip", cell: (row) => row.model || "(none)" },
    { name: "Endpoint", kind: "wide", cell: (row) => row.endpoint },
    { name: "Requests", kind: "number", cell: (row) => whole(row.requests) },
    { name: "Hit rate", cell: (row) => html`<${Share} value=${row.hit_rate} label=${`hit rate ${percent(row.hit_rate)}`} />` },
    { name: "Errors", kind: "number wide", cell: (row) => whole(row.errors) },
    { name: "Hit", kind: "number wide", cell: (row) => p50(row, "hit") },
    { name: "Miss", kind: "number wide", cell: (row) => p50(row, "miss") },
    { name: "Tokens/s", kind: "number wider", cell: (row) => few(row.tokens_per_second?.p50) },
  ];
  return html`<section class="panel" aria-labelledby="models"><h2 id="models">Models</h2>
    <${Table} caption=${`Models in the last ${window}; hit and miss are medians`} columns=${columns} rows=${fared.models}
      id=${(row) => `${row.endpoint} ${row.model}`} to=${(row) => link("requests", "", requestsOf(row))} /></section>`;
}
