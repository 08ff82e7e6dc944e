// How long answers took, by what the cache had to do with them, on one scale that runs by powers of ten.

import { plural, seconds } from "../lib/format.js";
import { html } from "../lib/html.js";

const ORDER = ["hit", "joined", "stale", "miss", "bypass"];
const MARKS = [1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1, 10, 100, 1000];

export function Latency({ byCache }) {
  const rows = ORDER.map((word) => [word, byCache[word]?.duration_seconds]).filter(([, told]) => told?.count);
  if (!rows.length) return html`<p class="quiet">No answers in this window yet.</p>`;
  const low = Math.floor(Math.log10(Math.max(1e-5, Math.min(...rows.map(([, told]) => told.p50)))));
  const high = Math.max(low + 1, Math.ceil(Math.log10(Math.max(...rows.map(([, told]) => told.p99)))));
  const at = (value) => Math.min(100, Math.max(0, (100 * (Math.log10(Math.max(value, 1e-6)) - low)) / (high - low)));
  const marks = MARKS.filter((mark) => Math.log10(mark) >= low - 1e-9 && Math.log10(mark) <= high + 1e-9);
  // of many marks, every other one is for wide screens only
  const kind = (n) => (marks.length > 5 && n % 2 && n < marks.length - 1 ? "wide" : undefined);
  return html`<div class="latency">
    ${rows.map(([word, told]) => html`<${Row} key=${word} word=${word} told=${told} at=${at} />`)}
    <div class="scale" aria-hidden="true">${marks.map((mark, n) => html`<span key=${mark} class=${kind(n)} style=${{ left: `${at(mark)}%` }}>${power(mark)}</span>`)}</div>
    <p class="small quiet">The dot is the median, the bar ends at P95, the line at P99.</p>
  </div>`;
}

function Row({ word, told, at }) {
  const told99 = `${word}: median ${seconds(told.p50)}, P95 ${seconds(told.p95)}, P99 ${seconds(told.p99)}`;
  const from = at(told.p50);
  return html`<div class="ranges" role="img" aria-label=${told99}>
    <div class="rangehead"><b>${word}</b><span>${seconds(told.p50)} <small>P95 ${seconds(told.p95)} · ${plural(told.count, "request")}</small></span></div>
    <div class=${`range ${word}`}>
      <i class="line" style=${{ left: `${from}%`, width: `${at(told.p99) - from}%` }}></i>
      <i class="bar" style=${{ left: `${from}%`, width: `${at(told.p95) - from}%` }}></i>
      <i class="dot" style=${{ left: `${from}%` }}></i>
    </div></div>`;
}

const power = (mark) => (mark >= 1 ? `${mark} s` : mark >= 1e-3 ? `${Math.round(mark * 1e3)} ms` : `${Math.round(mark * 1e6)} µs`);
