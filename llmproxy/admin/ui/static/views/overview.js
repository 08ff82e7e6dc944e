// What goes on now, and what went on before.

import { address, operator } from "../lib/api.js";
import { few, percent, plural, seconds, whole } from "../lib/format.js";
import { html } from "../lib/html.js";
import { Live } from "../lib/live.js";
import { usePoll } from "../lib/poll.js";
import { go, link } from "../lib/route.js";
import { Chart, Legend } from "../parts/chart.js";
import { Latency } from "../parts/latency.js";
import { Share, StateMark, Time } from "../parts/marks.js";
import { Empty, Problem, Waiting } from "../parts/notes.js";
import { KINDS, Measures, Requests } from "../parts/past.js";
import { Machine, Queue, Servers } from "../parts/standing.js";
import { Table } from "../parts/table.js";
import { ENDPOINTS } from "./requests.js";

const WINDOWS = {
  "5m": { title: "Live", period: "5 minutes", span: 300 },
  "1h": { title: "1 h", period: "hour", span: 3600 },
  "24h": { title: "24 h", period: "24 hours", span: 86_400 },
  "7d": { title: "7 d", period: "7 days", span: 7 * 86_400 },
  "30d": { title: "30 d", period: "30 days", span: 30 * 86_400 },
};

// how the figures name what has no model
const NO_MODEL = "none";

const live = new Live();

export function Overview({ query }) {
  const window = WINDOWS[query.get("window")] ? query.get("window") : "1h";
  const { period, span } = WINDOWS[window];
  // a long past moves slowly, and is much to add up
  const often = span > 3600 ? 30 : 4;
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
  const fared = usePoll((signal) => operator(`/api/performance?window=${window}`, { signal }), often, [window]);
  const past = usePoll((signal) => operator(`/api/performance/series?window=${window}`, { signal }), often, [window]);
  const error = counted.error ?? standing.error ?? fared.error ?? past.error;
  // what was true before the proxy went away is not what is so now
  const away = standing.error?.status === 0;
  const servers = standing.data?.upstreams.map((server) => (away ? { ...server, state: "unknown" } : server));
  const series = past.data?.window === window ? past.data : null;
  return html`<div class="title"><h1>Overview</h1>
      ${standing.data ? html`<${StateMark} state=${away ? "unknown" : standing.data.status} />` : null}
      <div class="switches" role="group" aria-label="Window of time">
        ${Object.entries(WINDOWS).map(([name, { title }]) => html`<button key=${name} aria-pressed=${name === window}
          onClick=${() => go("overview", "", { window: name })}>${title}</button>`)}
      </div></div>
    <${Problem} error=${error?.status ? error : null} />
    ${fared.data ? html`<${Tiles} fared=${fared.data} period=${period} />` : error ? null : html`<${Waiting} />`}
    ${window === "5m" ? html`<${Rates} />` : series ? html`<${Requests} past=${series} span=${span} period=${period} />` : null}
    ${series ? html`<${Measures} past=${series} span=${span} period=${period} />` : null}
    <div class="panels">
      <section class="panel" aria-labelledby="latency"><h2 id="latency">Hit against miss, in the last ${period}</h2>
        ${fared.data ? html`<${Latency} byCache=${fared.data.total.by_cache} />` : html`<${Waiting} />`}</section>
      <section class="panel" aria-labelledby="servers"><h2 id="servers">Model servers</h2>
        ${servers ? html`<${Servers} servers=${servers} />` : html`<${Waiting} />`}</section>
      <section class="panel" aria-labelledby="queue"><h2 id="queue">Job queue</h2>
        ${standing.data ? html`<${Queue} queue=${standing.data.queue} past=${live.queue} />` : html`<${Waiting} />`}</section>
      <section class="panel" aria-labelledby="machine"><h2 id="machine">This machine</h2>
        ${fared.data ? html`<${Machine} now=${fared.data.now} tiers=${counted.data?.tiers} />` : html`<${Waiting} />`}</section>
    </div>
    <${Models} fared=${fared.data} window=${period} />`;
}

function Tiles({ fared, period }) {
  const { total, all_time: ever } = fared;
  const of = (word) => total.by_cache[word]?.requests ?? 0;
  const [hit, miss] = ["hit", "miss"].map((outcome) => total.by_cache[outcome]?.duration_seconds?.p50);
  const [times, ...rows] = live.data;
  const sums = times.map((_, n) => rows.reduce((sum, row) => sum + (row[n] ?? 0), 0));
  const looked = ["hit", "stale", "joined", "miss", "only-if-cached"].reduce((sum, word) => sum + of(word), 0);
  return html`<div class="tiles">
    <${Tile} name="Requests" value=${whole(total.requests)} note=${`in the last ${period}; ${few(live.rate().all)} a second now`}>
      <${Chart} data=${[times, sums]} series=${[{ label: "requests", color: "--accent" }]} height=${36} span=${60} spark=${true}
        label="Requests a second in the last minute" /><//>
    <${Tile} name="Hit rate" value=${percent(total.hit_rate)} note=${`of ${plural(looked, "request")} looked up`}>
      <${Meter} parts=${[["hit", of("hit") + of("stale")], ["joined", of("joined")], ["miss", of("miss") + of("only-if-cached")]]} /><//>
    <${Tile} name="Errors" value=${whole(total.errors)} note=${total.errors ? `that failed here or at a model server, ${percent(total.error_rate)} of the requests` : "nothing failed, here or at a model server"}>
      <p class="small"><a href=${link("requests", "", { status: "error" })}>All with a status from 400 on</a></p><//>
    <${Tile} name="Time saved" value=${seconds(total.saved.upstream_seconds)} note=${`of the model servers, in the last ${period}`}>
      ${ever?.since ? html`<p class="small">In all since <${Time} at=${ever.since} day=${true} />: <b>${seconds(ever.saved.upstream_seconds)}</b>,${" "}
        ${whole(ever.saved.prompt_tokens + ever.saved.completion_tokens)} tokens</p>` : null}<//>
    <${Tile} name="A hit is" value=${hit && miss ? `${few(miss / hit)}×` : "–"} note=${hit && miss ? "as fast as a miss, by the median" : "no hits and misses to compare yet"}>
      <p class="small">${hit ? `${seconds(hit)} against ${seconds(miss)}` : ""}</p><//>
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
