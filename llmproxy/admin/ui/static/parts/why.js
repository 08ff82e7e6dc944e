// Why a request was a hit or not: the reasons, and what differs from the request most like it.

import { percent } from "../lib/format.js";
import { html } from "../lib/html.js";
import { link } from "../lib/route.js";
import { CacheMark, Time } from "./marks.js";

export function Why({ told }) {
  return html`<ul class="because">${told.because.map((line) => html`<li key=${line}>${line}</li>`)}</ul>
    ${told.nearest ? html`<${Nearest} nearest=${told.nearest} differences=${told.differences} />` : null}
    <${Key} keyed=${told.key} />`;
}

function Nearest({ nearest, differences }) {
  return html`<p>Most like it: <a href=${link("requests", nearest.request_id, { row: nearest.id })}><${Time} at=${nearest.created_at} /></a>${" "}
      <${CacheMark} cache=${nearest.cache} /> <span class="quiet">${percent(nearest.similarity)} the same</span></p>
    ${differences.map((each) => html`<${Difference} key=${each.path} each=${each} />`)}`;
}

function Difference({ each }) {
  return html`<figure class="difference">
    <figcaption><code>${each.path || "the body"}</code>${each.note ? html` <small>${each.note}</small>` : null}</figcaption>
    ${each.spans
      ? each.spans.map((span) => html`<${Span} key=${span.at} span=${span} />`)
      : html`<p class="diff">
          ${"theirs" in each ? html`<del><span class="unseen">before: </span>${each.theirs}</del> ` : null}
          ${"ours" in each ? html`<ins><span class="unseen">now: </span>${each.ours}</ins>` : null}
        </p>`}
  </figure>`;
}

function Span({ span }) {
  return html`<p class="diff">${span.before}${span.theirs ? html`<del>${span.theirs}</del>` : null}${
    span.ours ? html`<ins>${span.ours}</ins>` : null}${span.after}</p>`;
}

function Key({ keyed }) {
  if (!keyed?.digest) return null;
  const rows = [...Object.entries(keyed.fields)];
  return html`<details><summary>What is in the key</summary>
    <dl class="facts narrow">
      ${rows.map(([name, value]) => html`<div key=${name}><dt>${name}</dt><dd><code>${value}</code></dd></div>`)}
      ${Object.entries(keyed.excused).map(([name, { why }]) => html`<div key=${name} class="off"><dt>${name}</dt><dd>not part of it: ${why}</dd></div>`)}
    </dl></details>`;
}
