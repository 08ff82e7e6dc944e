// How the parts of the program stand: model servers, the queue, the machine.

import { bytes, percent, seconds, whole } from "../lib/format.js";
import { html } from "../lib/html.js";
import { Chart, Legend } from "./chart.js";
import { Share, StateMark } from "./marks.js";

export function Servers({ servers }) {
  if (!servers.length) return html`<p class="quiet">None was found. Start one, or name it in LLMPROXY_UPSTREAM.</p>`;
  return html`<ul class="servers">${servers.map((server) => html`<li key=${server.name}>
    <div class="serverhead"><code>${server.name.replace(/^https?:\/\//, "")}</code><${StateMark} state=${server.state} /></div>
    <div class="small">${server.kind} · answers in ${seconds(server.latency_seconds)} ·${" "}
      <span class="calls" aria-hidden="true">${Array.from({ length: Math.min(server.in_flight, 16) }, (_, n) => html`<i key=${n}></i>`)}</span>
      ${whole(server.in_flight)} in work</div>
    ${server.last_error ? html`<p class=${server.state === "ok" ? "small" : "small wrong"}>${server.state === "ok" ? "Before: " : ""}${server.last_error}</p>` : null}
  </li>`)}</ul>`;
}

export function Queue({ queue, past }) {
  if (queue.state === "off") return html`<p class="quiet">Jobs are switched off (LLMPROXY_JOBS).</p>`;
  const series = [
    { label: "running", color: "--accent", value: whole(queue.running) },
    { label: "waiting", color: "--joined", value: whole(queue.waiting) },
  ];
  return html`<${Legend} series=${series} />
    <${Chart} data=${past} series=${series} height=${96} format=${whole}
      label=${`Calls of jobs: ${queue.running} running, ${queue.waiting} waiting`} />
    <p class="small">${queue.waiting ? `The oldest has waited ${seconds(queue.oldest_seconds)}.` : "Nothing waits."}</p>
    ${queue.last_error ? html`<p class="small wrong">${queue.last_error}</p>` : null}`;
}

export function Machine({ now, tiers }) {
  const used = now.resources;
  const memory = used.system_memory_bytes ? 1 - used.system_memory_available_bytes / used.system_memory_bytes : null;
  const rows = [
    ["Processors", used.system_cpu, `${percent(used.process_cpu)} of one by llmproxy`],
    ["Memory", memory, `${bytes(used.process_memory_bytes)} by llmproxy`],
  ];
  return html`<dl class="machine">
      ${rows.map(([name, share, note]) => html`<div key=${name}><dt>${name}</dt>
        <dd><${Share} value=${share} label=${`${name}: ${percent(share)}`} /><span class="small">${note}</span></dd></div>`)}
      ${Object.entries(tiers ?? {}).map(([name, tier]) => html`<div key=${name}><dt>Cache, ${name}</dt>
        <dd>${whole(tier.entries)} entries, ${bytes(tier.bytes)}</dd></div>`)}
      ${now.database ? html`<div><dt>Database</dt><dd>${bytes(now.database.bytes)}</dd></div>` : null}
      <div><dt>Event loop lag</dt><dd>${seconds(used.event_loop_lag.mean_seconds)}, at most ${seconds(used.event_loop_lag.max_seconds)}</dd></div>
    </dl>`;
}
