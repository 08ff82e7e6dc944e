// Small marks: what became of a request, how a part stands, a share as a bar, a time one can hover over.

import { ago, clock, date, full, percent } from "../lib/format.js";
import { html } from "../lib/html.js";

const KNOWN = new Set(["hit", "miss", "joined", "bypass", "stale", "only-if-cached"]);

export function CacheMark({ cache }) {
  if (!cache) return html`<span class="mark none">none</span>`;
  return html`<span class=${`mark ${KNOWN.has(cache) ? cache : "none"}`}>${cache}</span>`;
}

export function StatusMark({ status, cache }) {
  // that nothing is stored is an answer to who asks for what is stored
  return html`<span class=${(status >= 400 || status === 0) && cache !== "only-if-cached" ? "status bad" : "status"}>${status || "none"}</span>`;
}

const WELL = { ok: "good", off: "idle", degraded: "warn", down: "bad" };

export function StateMark({ state }) {
  return html`<span class=${`state ${WELL[state] ?? "idle"}`}><i aria-hidden="true"></i>${state}</span>`;
}

const STAGE = {
  completed: "good",
  failed: "bad",
  cancelled: "idle",
  cancelling: "warn",
  expired: "bad",
  running: "busy",
  finalizing: "busy",
  pending: "idle",
};

export function JobMark({ status }) {
  return html`<span class=${`state ${STAGE[status] ?? "idle"}`}><i aria-hidden="true"></i>${status}</span>`;
}

/** A moment; with `relative` how long ago, with `day` the day alone. */
export function Time({ at, relative = false, day = false }) {
  const when = new Date(at * 1000);
  const shown = Number.isNaN(when.valueOf()) ? undefined : when.toISOString();
  return html`<time datetime=${shown} title=${full(at)}>${relative ? ago(at) : day ? date(at) : clock(at)}</time>`;
}

/** A share of 1 as a bar with its figure. */
export function Share({ value, label }) {
  const width = `${Math.min(100, Math.max(0, (value ?? 0) * 100))}%`;
  return html`<span class="share" aria-label=${label}>
    <span class="track" aria-hidden="true"><i style=${{ width }}></i></span><b>${percent(value)}</b>
  </span>`;
}

/** A job's progress: done, failed, and what is left. */
export function Progress({ progress, label }) {
  const { total, completed, failed, percent: done } = progress;
  const part = (number) => ({ width: `${total ? (100 * number) / total : 0}%` });
  return html`<span class="progress" role="progressbar" aria-label=${label} aria-valuemin="0" aria-valuemax="100"
    aria-valuenow=${Math.round(done)}>
    <i class="done" style=${part(completed)}></i><i class="failed" style=${part(failed)}></i>
  </span>`;
}
