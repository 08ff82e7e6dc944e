// Markdown as elements: the lexer's tokens become nodes, never markup. What is HTML in it stays text.

import { html, useMemo } from "../lib/html.js";

const { marked } = globalThis;

/** Deeper than any answer means to be. */
const DEEPEST = 30;

export function Markdown({ text }) {
  const tokens = useMemo(() => lexed(text), [text]);
  if (tokens === null) return html`<div class="text">${text}</div>`;
  return html`<div class="markdown">${blocks(tokens, 0)}</div>`;
}

function lexed(text) {
  try {
    return marked.lexer(text, { gfm: true, breaks: true });
  } catch {
    // nested beyond what it can read
    return null;
  }
}

const all = (tokens, one, depth) => (tokens ?? []).map((token, n) => html`<${One} key=${n} token=${token} one=${one} depth=${depth} />`);
const blocks = (tokens, depth) => all(tokens, block, depth);
const inlines = (tokens, depth) => all(tokens, inline, depth);

function One({ token, one, depth }) {
  return depth > DEEPEST ? token.raw : one(token, depth + 1);
}

function block(token, depth) {
  switch (token.type) {
    case "space":
    case "def":
      return null;
    case "hr":
      return html`<hr />`;
    case "code":
      return html`<pre tabindex="0" aria-label="code"><code>${token.text}</code></pre>`;
    case "heading":
      // the page's own headings are above them, and are not to be mixed up with an answer's
      return html`<p class="heading">${inlines(token.tokens, depth)}</p>`;
    case "blockquote":
      return html`<blockquote>${blocks(token.tokens, depth)}</blockquote>`;
    case "list":
      return html`<${token.ordered ? "ol" : "ul"} start=${token.ordered && token.start !== 1 ? token.start : undefined}>
        ${token.items.map((item, n) => html`<li key=${n}>${item.task ? (item.checked ? "☑ " : "☐ ") : null}${blocks(item.tokens, depth)}</li>`)}<//>`;
    case "table":
      return html`<div class="wide-table" tabindex="0" role="region" aria-label="table"><table>
        <thead><tr>${token.header.map((cell, n) => html`<th key=${n} scope="col">${inlines(cell.tokens, depth)}</th>`)}</tr></thead>
        <tbody>${token.rows.map((row, n) => html`<tr key=${n}>${row.map((cell, m) => html`<td key=${m}>${inlines(cell.tokens, depth)}</td>`)}</tr>`)}</tbody>
      </table></div>`;
    case "paragraph":
      return html`<p>${inlines(token.tokens, depth)}</p>`;
    default:
      return token.tokens ? inlines(token.tokens, depth) : inline(token, depth);
  }
}

function inline(token, depth) {
  switch (token.type) {
    case "br":
      return html`<br />`;
    case "codespan":
      return html`<code>${token.text}</code>`;
    case "strong":
    case "em":
    case "del":
      // of a word that is struck out, no change is meant as in a comparison
      return html`<${token.type === "del" ? "s" : token.type}>${inlines(token.tokens, depth)}<//>`;
    case "link":
      return /^(https?|mailto):/i.test(token.href)
        ? html`<a href=${token.href} target="_blank" rel="noopener noreferrer nofollow">${inlines(token.tokens, depth)}</a>`
        : inlines(token.tokens, depth);
    default:
      // pictures at an address are named, not fetched
      return token.type === "escape" || !token.tokens ? (token.type === "image" ? token.raw : token.text) : inlines(token.tokens, depth);
  }
}
