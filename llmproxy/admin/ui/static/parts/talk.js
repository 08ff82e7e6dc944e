// Messages for reading, and documents as they are.

import { whole } from "../lib/format.js";
import { html, useState } from "../lib/html.js";
import { tell } from "./notes.js";

/** Characters of one text that are shown until somebody asks for more. */
const SHOWN = 6000;
const RAW_SHOWN = 200_000;

export function Messages({ messages, none }) {
  if (!messages.length) return html`<p class="quiet">${none}</p>`;
  return html`<ol class="talk">
    ${messages.map((message, n) => html`<${Message} key=${n} message=${message} />`)}
  </ol>`;
}

export function Message({ message, children }) {
  const { role, text, kind } = message;
  return html`<li class=${`message ${kind === "error" ? "error" : ""} from-${/^\w+$/.test(role) ? role : "other"}`}>
    <div class="who">${role}${kind === "text" ? null : html` <small>${kind}</small>`}</div>
    <${Text} text=${text} muted=${kind === "reasoning"} />${children}
  </li>`;
}

function Text({ text, muted }) {
  const [all, setAll] = useState(false);
  const cut = !all && text.length > SHOWN;
  return html`<div class=${muted ? "text muted" : "text"}>${cut ? `${text.slice(0, SHOWN)}…` : text}</div>
    ${cut ? html`<button class="plain" onClick=${() => setAll(true)}>Show all ${whole(text.length)} characters</button>` : null}`;
}

/** A body as it was kept. */
export function Raw({ title, body, cut = false }) {
  if (body === null || body === undefined) return html`<p class="quiet">The ${title} is not kept.</p>`;
  const text = typeof body === "string" ? body : JSON.stringify(body, null, 2);
  const copy = () => navigator.clipboard.writeText(text).then(
    () => tell(`The ${title} is on the clipboard.`),
    () => tell("The browser does not allow to copy."),
  );
  return html`<div class="raw">
    <div class="rawhead"><h3>${title}</h3><button class="plain" onClick=${copy}>Copy</button></div>
    ${cut ? html`<p class="quiet">It was longer than what is kept.</p>` : null}
    <pre tabindex="0" aria-label=${title}>${text.slice(0, RAW_SHOWN)}</pre>
    ${text.length > RAW_SHOWN ? html`<p class="quiet">The first ${whole(RAW_SHOWN)} characters; “Copy” takes all.</p>` : null}
  </div>`;
}
