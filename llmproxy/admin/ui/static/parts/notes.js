// What is said where there is nothing to show: empty places, errors, waiting; and the line that is read aloud.

import { html, useEffect, useState } from "../lib/html.js";

export function Empty({ title, children }) {
  return html`<div class="empty"><h2>${title}</h2><p>${children}</p></div>`;
}

export function Problem({ error, retry }) {
  if (!error) return null;
  return html`<div class="problem" role="alert">
    <p>${error.message}</p>${retry ? html`<button onClick=${retry}>Try again</button>` : null}
  </div>`;
}

export function Waiting({ what = "Loading" }) {
  return html`<p class="waiting" role="status">${what}…</p>`;
}

const told = new EventTarget();

/** Shows a short text for some seconds, and has it read aloud. */
export function tell(text) {
  told.dispatchEvent(new CustomEvent("tell", { detail: text }));
}

export function Told() {
  const [text, setText] = useState("");
  useEffect(() => {
    let timer = 0;
    const heard = (event) => {
      clearTimeout(timer);
      setText(event.detail);
      timer = setTimeout(() => setText(""), 6000);
    };
    told.addEventListener("tell", heard);
    return () => {
      clearTimeout(timer);
      told.removeEventListener("tell", heard);
    };
  }, []);
  return html`<div class=${text ? "told shown" : "told"} role="status" aria-live="polite">${text}</div>`;
}
