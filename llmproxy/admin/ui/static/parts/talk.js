// Messages for reading, and documents as they are.

import { whole } from "../lib/format.js";
import { html, useState } from "../lib/html.js";
import { Markdown } from "./markdown.js";
import { tell } from "./notes.js";

/** Characters of one text that are shown until somebody asks for more. */
const SHOWN = 6000;
const RAW_SHOWN = 200_000;

/** With a button that shows texts as they were written, where `choice` says so. */
export function Messages({ messages, none, choice = false }) {
  const [plain, setPlain] = useState(false);
  if (!messages.length) return html`<p class="quiet">${none}</p>`;
  return html`${choice ? html`<button class="plain" aria-pressed=${plain} onClick=${() => setPlain(!plain)}>As written</button>` : null}
    <ol class="talk">
      ${messages.map((message, n) => html`<${Message} key=${n} message=${message} plain=${plain} />`)}
    </ol>`;
}

export function Message({ message, plain = false, children }) {
  const { role, text, kind, source } = message;
  return html`<li class=${`message ${kind === "error" ? "error" : ""} from-${/^\w+$/.test(role) ? role : "other"}`}>
    <div class="who">${role}${kind === "text" ? null : html` <small>${kind}</small>`}</div>
    ${source ? html`<img class="attached" src=${source} alt=${`Image of the ${role}'s message`} />` : null}
    ${text ? html`<${Text} text=${text} muted=${kind === "reasoning"} plain=${plain || kind !== "text"} />` : null}${children}
  </li>`;
}

function Text({ text, muted, plain }) {
  const [all, setAll] = useState(false);
  const cut = !all && text.length > SHOWN;
  const shown = cut ? `${text.slice(0, SHOWN)}…` : text;
  return html`${plain ? html`<div class=${muted ? "text muted" : "text"}>${shown}</div>` : html`<${Markdown} text=${shown} />`}
    ${cut ? html`<button class="plain" onClick=${() => setAll(true)}>Show all ${whole(text.length)} characters</button>` : null}`;
}

/** Puts a text on the clipboard, if the browser lets it, and says what happened. */
export function copyText(text, what) {
  const failed = () => tell("The browser does not allow to copy.");
  // it offers none where the page comes without TLS and from another machine
  if (!navigator.clipboard) return failed();
  return navigator.clipboard.writeText(text).then(() => tell(`The ${what} is on the clipboard.`), failed);
}

/** A body as it was kept. */
export function Raw({ title, body, cut = false }) {
  if (body === null || body === undefined) return html`<p class="quiet">The ${title} is not kept.</p>`;
  const text = typeof body === "string" ? body : JSON.stringify(body, null, 2);
  return html`<div class="raw">
    <div class="rawhead"><h3>${title}</h3><button class="plain" onClick=${() => copyText(text, title)}>Copy</button></div>
    ${cut ? html`<p class="quiet">It was longer than what is kept.</p>` : null}
    <pre tabindex="0" aria-label=${title}>${text.slice(0, RAW_SHOWN)}</pre>
    ${text.length > RAW_SHOWN ? html`<p class="quiet">The first ${whole(RAW_SHOWN)} characters; “Copy” takes all.</p>` : null}
  </div>`;
}
