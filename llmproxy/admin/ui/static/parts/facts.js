// Names and values, those without a value left out.

import { html } from "../lib/html.js";

export function Facts({ facts }) {
  const given = facts.filter(([, value]) => value !== null && value !== undefined && value !== "");
  return html`<dl class="facts">
    ${given.map(([name, value]) => html`<div key=${name}><dt>${name}</dt><dd>${value}</dd></div>`)}
  </dl>`;
}
