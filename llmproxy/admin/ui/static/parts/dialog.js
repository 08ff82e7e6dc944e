// The browser's own dialog: it keeps the focus inside, ends with Escape, and gives the focus back.

import { html, useEffect, useRef } from "../lib/html.js";

export function Dialog({ title, onClose, children, fixed = false }) {
  const element = useRef(null);
  useEffect(() => {
    const dialog = element.current;
    dialog.showModal();
    return () => dialog.close();
  }, []);
  const cancel = (event) => {
    event.preventDefault();
    if (!fixed) onClose();
  };
  return html`<dialog ref=${element} aria-labelledby="dialog-title" onCancel=${cancel}>
    <h2 id="dialog-title">${title}</h2>
    ${children}
  </dialog>`;
}
