// The phases of a request, one below the other, where they began and how long they took.

import { seconds } from "../lib/format.js";
import { html } from "../lib/html.js";

/** What goes on in each, in plain words; the names are those of the documentation and the metrics. */
const WORDS = {
  name: "Given an id",
  watch: "Counted as in work",
  guard: "Origin checked",
  identify: "Caller identified",
  limit: "Limits checked",
  read: "Body read and parsed",
  admit: "May it be cached?",
  key: "Key made",
  "look up": "Cache looked up",
  join: "Same request under way?",
  pick: "Model server chosen",
  send: "Sent, waited for the answer",
  tee: "Answer received and passed on",
  settle: "Answer checked",
  store: "Answer stored",
  record: "Written into the history",
  count: "Counted",
};

/** `phases` are seconds by name, in the order in which they came. */
export function Waterfall({ phases, total }) {
  const names = Object.keys(phases);
  if (!names.length) {
    return html`<p class="quiet">Answered from memory before the first phase, in ${seconds(total)}.</p>`;
  }
  const whole = Math.max(total, Object.values(phases).reduce((sum, length) => sum + length, 0), 1e-9);
  let begun = 0;
  const rows = names.map((name) => {
    const from = begun;
    begun += phases[name];
    return { name, length: phases[name], left: (100 * from) / whole, width: (100 * phases[name]) / whole };
  });
  return html`<table class="waterfall"><caption class="unseen">Phases in order, with how long each took</caption>
    <tbody>${rows.map(({ name, length, left, width }) => html`<tr key=${name}>
      <th scope="row" title=${`phase “${name}”`}>${WORDS[name] ?? name}</th>
      <td class="lane"><i aria-hidden="true" class=${name.replace(" ", "-")}
        style=${{ left: `${left}%`, width: `max(2px, ${width}%)` }}></i></td>
      <td class="number">${seconds(length)}</td>
    </tr>`)}</tbody></table>`;
}
