// Entries added up: bars that choose, and columns for classes.

import { bytes, plural, whole } from "../lib/format.js";
import { html, useState } from "../lib/html.js";

const SHOWN = 6;

export function Bars({ title, list, chosen, onChoose }) {
  const [all, setAll] = useState(false);
  const most = Math.max(...list.map((each) => each.bytes), 1);
  const shown = all ? list : list.slice(0, SHOWN);
  return html`<section class="group"><h2>${title}</h2><ul>
    ${shown.map(({ name, entries, bytes: size }) => html`<li key=${name}>
      <button class="groupbar" aria-pressed=${chosen === name} onClick=${() => onChoose(name)}>
        <span class="name">${name || "(none)"}</span><span class="amount">${whole(entries)} · ${bytes(size)}</span>
        <i aria-hidden="true" style=${{ width: `${(100 * size) / most}%` }}></i>
      </button></li>`)}</ul>
    ${list.length > shown.length ? html`<button class="plain" onClick=${() => setAll(true)}>${whole(list.length - shown.length)} more</button>` : null}
  </section>`;
}

/** Classes in their order; `unit` says a bound. */
export function Columns({ title, list, unit }) {
  const most = Math.max(...list.map((each) => each.entries), 1);
  const label = (n) => (list[n].below === null ? `${unit(list[n - 1].below)} and more` : `below ${unit(list[n].below)}`);
  const told = list.map((each, n) => `${label(n)}: ${plural(each.entries, "entry", "entries")}`).join(", ");
  return html`<section class="group"><h2>${title}</h2>
    <div class="histogram" role="img" aria-label=${`${title}: ${told}`}>
      ${list.map((each, n) => html`<div key=${n} title=${`${label(n)}: ${plural(each.entries, "entry", "entries")}, ${bytes(each.bytes)}`}>
        <b>${each.entries ? whole(each.entries) : ""}</b><i style=${{ height: `${(64 * each.entries) / most}px` }}></i>
        <small>${each.below === null ? "more" : `< ${unit(each.below)}`}</small></div>`)}
    </div></section>`;
}
