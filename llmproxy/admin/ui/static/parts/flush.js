// Flushing with a look at what would go.

import { operator } from "../lib/api.js";
import { bytes, plural } from "../lib/format.js";
import { html, useEffect, useState } from "../lib/html.js";
import { Dialog } from "./dialog.js";
import { Problem, Waiting, tell } from "./notes.js";

const PATH = "/admin/cache/flush";

/** `selector` as the API takes it; `what` says it in words. `onDone` is called with whether something was flushed. */
export function Flush({ selector, what, onDone }) {
  const [preview, setPreview] = useState(null);
  const [error, setError] = useState(null);
  const [busy, setBusy] = useState(false);
  useEffect(() => {
    operator(PATH, { method: "POST", body: { ...selector, dry_run: true } }).then(setPreview, setError);
  }, []);
  const flush = async () => {
    setBusy(true);
    try {
      const gone = await operator(PATH, { method: "POST", body: selector });
      tell(`${plural(gone.flushed, "entry", "entries")} flushed, ${bytes(gone.bytes)}.`);
      onDone(true);
    } catch (failed) {
      setError(failed);
      setBusy(false);
    }
  };
  return html`<${Dialog} title="Flush the cache" onClose=${() => onDone(false)}>
    <p>${what}</p>
    <${Problem} error=${error} />
    ${preview
      ? html`<p class="preview"><b>${plural(preview.flushed, "entry", "entries")}</b> would go, ${bytes(preview.bytes)}.
          What is asked again is fetched from the model server again.</p>`
      : error ? null : html`<${Waiting} what="Counting" />`}
    <div class="actions">
      <button onClick=${() => onDone(false)}>Keep</button>
      <button class="danger" disabled=${!preview || !preview.flushed || busy} onClick=${flush}>
        ${preview?.flushed ? `Flush ${plural(preview.flushed, "entry", "entries")}` : "Flush"}
      </button>
    </div>
  <//>`;
}
