// Tables: a page of rows at a time, so that they stay quick however much there is.

import { html } from "../lib/html.js";

/**
 * `columns` are {name, cell(row), kind}: kind "number" aligns to the right, "wide" is left out on narrow screens,
 * "wider" on tablets too, "widest" on small laptops too. `to(row)` is where a row leads; the first cell holds the link. A column
 * with an `order` is one that the rows may be sorted by, with `sort` as {order, to(order)}: how they are, and the link.
 */
export function Table({ caption, columns, rows, id, to, sort, mark = () => "" }) {
  const head = columns.map(({ name, kind = "", order }) => {
    if (!sort || order === undefined) return html`<th key=${name} scope="col" class=${kind}>${name}</th>`;
    const chosen = order === sort.order;
    return html`<th key=${name} scope="col" class=${kind} aria-sort=${chosen ? "descending" : undefined}>
      <a class="sort" href=${sort.to(order)}>${name}${chosen ? " ↓" : ""}</a></th>`;
  });
  const line = (row) => html`<tr key=${id(row)} class=${mark(row)}>
    ${columns.map(({ name, cell, kind = "" }, n) => html`<td key=${name} class=${kind}>
      ${n === 0 && to ? html`<a class="rowlink" href=${to(row)}>${cell(row)}</a>` : cell(row)}
    </td>`)}
  </tr>`;
  return html`<table><caption class="unseen">${caption}</caption>
    <thead><tr>${head}</tr></thead><tbody>${rows.map(line)}</tbody></table>`;
}

/** To the newer and the older page. */
export function Pages({ first, more, onFirst, onMore }) {
  if (first && !more) return null;
  return html`<nav class="pages" aria-label="Pages">
    <button disabled=${first} onClick=${onFirst}>Newest</button>
    <button disabled=${!more} onClick=${onMore}>Older</button>
  </nav>`;
}
