// A window of time in charts, step by step up to now.

import { few, percent, plural, seconds, whole } from "../lib/format.js";
import { html } from "../lib/html.js";
import { Chart, Legend } from "./chart.js";

export const KINDS = [
  { label: "hits", color: "--hit" },
  { label: "joined", color: "--joined" },
  { label: "misses", color: "--miss" },
  { label: "bypassed", color: "--idle" },
  { label: "only if cached", color: "--stale" },
];
/** The outcomes that each of them counts. */
const OUTCOMES = [["hit", "stale"], ["joined"], ["miss"], ["bypass"], ["only-if-cached"]];

const STEPS = { 60: "a minute", 3600: "an hour", 10800: "in 3 hours", 43200: "in 12 hours" };

/** `past` is what `/api/performance/series` says; `span` the window's seconds, `period` its name. */
export function Requests({ past, span, period }) {
  const counts = OUTCOMES.map((names) => past.data.map(({ requests }) => names.reduce((sum, name) => sum + (requests[name] ?? 0), 0)));
  const sums = counts.map((row) => row.reduce((sum, count) => sum + count, 0));
  const all = sums.reduce((sum, count) => sum + count, 0);
  return html`<section class="panel" aria-labelledby="rates"><div class="panelhead"><h2 id="rates">Requests ${STEPS[past.step_seconds]}</h2>
      <${Legend} series=${KINDS.map((kind, n) => ({ ...kind, value: whole(sums[n]) }))} /></div>
    <${Chart} data=${stepPoints(past, counts)} series=${KINDS} stacked=${true} height=${190} span=${span} format=${short}
      label=${`${plural(all, "request")} in the last ${period}`} /></section>`;
}

/** Seconds by which an axis of time is divided. */
const LENGTHS = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200,
  14_400, 28_800, 86_400, 172_800, 432_000, 864_000, 2_592_000];

const plain = (value) => seconds(value).replace(/\.0+ /, " ");

/** Five small charts. */
export function Measures({ past, span, period }) {
  const row = (name) => past.data.map((step) => step[name]);
  const sum = (name) => row(name).reduce((total, value) => total + (value ?? 0), 0);
  const last = (name) => row(name).findLast((value) => value !== null) ?? null;
  return html`<div class="measures">
    <${Measure} id="rate" title="Hit rate" past=${past} span=${span} format=${percent} range=${[0, 1]}
      series=${[{ label: "of what was looked up", color: "--hit", value: percent(last("hit_rate")), row: row("hit_rate") }]} />
    <${Measure} id="times" title="Latency" past=${past} span=${span} format=${plain} log=${true}
      series=${[
        { label: "hit", color: "--hit", value: seconds(last("hit_seconds")), row: row("hit_seconds"), fill: false },
        { label: "miss", color: "--miss", value: seconds(last("fetched_seconds")), row: row("fetched_seconds"), fill: false },
        { label: "miss, P95", color: "--idle", value: seconds(last("fetched_seconds_p95")), row: row("fetched_seconds_p95"), fill: false },
      ]} />
    <${Measure} id="errors" title="Errors" past=${past} span=${span} format=${short}
      series=${[{ label: `in the last ${period}`, color: "--bad", value: whole(sum("errors")), row: row("errors") }]} />
    <${Measure} id="saved" title="Time saved" past=${past} span=${span} format=${plain} steps=${LENGTHS}
      series=${[{ label: "of the model servers", color: "--hit", value: seconds(sum("saved_seconds")), row: row("saved_seconds") }]} />
    <${Measure} id="tokens" title="Tokens" past=${past} span=${span} format=${short}
      series=${[
        { label: "computed", color: "--miss", value: short(sum("fetched_tokens")), row: row("fetched_tokens"), fill: false },
        { label: "from the cache", color: "--hit", value: short(sum("saved_tokens")), row: row("saved_tokens"), fill: false },
      ]} />
  </div>`;
}

function Measure({ id, title, past, span, series, ...rest }) {
  const label = `${title}: ${series.map((each) => `${each.label} ${each.value}`).join(", ")}`;
  return html`<section class=${`panel ${id}`} aria-labelledby=${id}><h2 id=${id}>${title}</h2><${Legend} series=${series} />
    <${Chart} data=${levelPoints(past, series.map((each) => each.row))} series=${series} height=${110} span=${span} label=${label} ...${rest} /></section>`;
}

/** Each step's value from its beginning to its end, that of the last one up to now. */
function stepPoints(past, rows) {
  return [[...past.data.map(({ at }) => at), Date.now() / 1000], ...rows.map((row) => [...row, row.at(-1) ?? null])];
}

/** The same as two points for each step: one that has no neighbours is seen, too. */
function levelPoints(past, rows) {
  const ends = (at) => [at, Math.min(at + past.step_seconds - 0.001, Date.now() / 1000)];
  return [past.data.flatMap(({ at }) => ends(at)), ...rows.map((row) => row.flatMap((value) => [value, value]))];
}

function short(value) {
  if (value >= 1e6) return `${few(value / 1e6)} M`;
  return value >= 1e4 ? `${Math.round(value / 1e3)} k` : String(Number(value.toFixed(2)));
}
