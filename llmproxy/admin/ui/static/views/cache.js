// What the cache holds: by model, namespace, tag, endpoint, size and age; the entries; and flushing what is chosen.

import { operator, query as joined } from "../lib/api.js";
import { bytes, plural, whole } from "../lib/format.js";
import { html, useEffect, useRef, useState } from "../lib/html.js";
import { usePoll } from "../lib/poll.js";
import { go, link } from "../lib/route.js";
import { Flush } from "../parts/flush.js";
import { Bars, Columns } from "../parts/groups.js";
import { Time } from "../parts/marks.js";
import { Empty, Problem, Waiting } from "../parts/notes.js";
import { Pages, Table } from "../parts/table.js";

const CHOSEN = ["q", "model", "namespace", "tag", "endpoint", "prefix"];
const TYPED = ["model", "namespace", "tag", "prefix"];
const TITLES = { prefix: "first digits of a key" };
const NAMES = { model: "Models", namespace: "Namespaces", tag: "Tags", endpoint: "Endpoints" };

const COLUMNS = [
  { name: "Key", cell: (row) => html`<code>${row.key.slice(0, 8)}</code>` },
  { name: "Question", kind: "asked", cell: (row) => html`<span class="line">${row.question}</span>` },
  { name: "Hits", kind: "number", cell: (row) => whole(row.hits) },
  { name: "Model", kind: "clip", cell: (row) => row.model },
  { name: "Endpoint", kind: "wider", cell: (row) => row.endpoint },
  { name: "Namespace", kind: "widest clip", cell: (row) => row.namespace },
  { name: "Tags", kind: "widest clip", cell: (row) => row.tags.map((tag) => html`<span key=${tag} class="tag">${tag}</span>`) },
  { name: "Last used", kind: "wide", cell: (row) => html`<${Time} at=${row.last_used} relative=${true} />` },
  { name: "Stored", kind: "wider", cell: (row) => html`<${Time} at=${row.created} relative=${true} />` },
  { name: "Size", kind: "number", cell: (row) => bytes(row.bytes) },
];

export function Cache({ query }) {
  const chosen = Object.fromEntries(CHOSEN.filter((name) => query.has(name)).map((name) => [name, query.get(name)]));
  const [order, cursor] = [query.get("order") ?? "newest", query.get("cursor") ?? undefined];
  const asked = joined({ ...chosen, order, limit: 50, cursor });
  const listed = usePoll((signal) => operator(`/admin/cache/entries?${asked}`, { signal }), 0, [asked]);
  const sums = usePoll((signal) => operator("/admin/cache/groups", { signal }), 0);
  const [flushing, setFlushing] = useState(false);
  const done = (flushed) => {
    setFlushing(false);
    if (flushed) [listed, sums].forEach((each) => each.reload());
  };
  const set = (changes) => go("cache", "", { ...chosen, ...(order === "newest" ? {} : { order }), ...changes });
  return html`<div class="title"><h1>Cache</h1><button class="danger" onClick=${() => setFlushing(true)}>Flush…</button></div>
    <${Problem} error=${sums.error ?? listed.error} retry=${() => [listed, sums].forEach((each) => each.reload())} />
    ${sums.data ? html`<${Groups} sums=${sums.data} chosen=${chosen} set=${set} />` : null}
    <${Search} sums=${sums.data} chosen=${chosen} order=${order} set=${set} />
    ${listed.data ? html`<${Entries} page=${listed.data} chosen=${chosen} cursor=${cursor} set=${set} />` : listed.error ? null : html`<${Waiting} />`}
    ${flushing ? html`<${FlushChosen} chosen=${chosen} onDone=${done} />` : null}`;
}

function Groups({ sums, chosen, set }) {
  const all = sums.sizes.reduce((total, each) => ({ entries: total.entries + each.entries, bytes: total.bytes + each.bytes }), { entries: 0, bytes: 0 });
  const lists = { model: sums.models, namespace: sums.namespaces, endpoint: sums.endpoints, tag: sums.tags };
  return html`<p class="sum"><b>${plural(all.entries, "entry", "entries")}</b> on disk, ${bytes(all.bytes)} as stored.
      ${sums.complete ? null : html` <span class="quiet">There are more kinds than are added up here.</span>`}</p>
    <div class="groups">
      ${Object.entries(lists).filter(([name, list]) => list.length && !(name === "namespace" && list.length === 1 && !list[0].name)).map(([name, list]) => html`<${Bars}
        key=${name} title=${NAMES[name]} list=${list} chosen=${chosen[name]}
        onChoose=${(value) => set({ [name]: value === chosen[name] ? undefined : value })} />`)}
    </div>
    <div class="groups">
      <${Columns} title="Size" list=${sums.sizes} unit=${size} />
      <${Columns} title="Age" list=${sums.ages} unit=${age} />
    </div>`;
}

function Search({ sums, chosen, order, set }) {
  const form = useRef(null);
  const known = { model: sums?.models, namespace: sums?.namespaces, tag: sums?.tags };
  useEffect(() => {
    for (const name of ["q", ...TYPED]) form.current.elements[name].value = chosen[name] ?? "";
  }, [JSON.stringify(chosen)]);
  const apply = (event) => {
    event.preventDefault();
    const typed = new FormData(form.current);
    // a group without a name is chosen by its bar: no text stands for it
    const of = (name) => typed.get(name).trim() || (chosen[name] === "" ? "" : undefined);
    set({ q: of("q"), ...Object.fromEntries(TYPED.map((name) => [name, of(name)])), prefix: of("prefix")?.toLowerCase() });
  };
  return html`<form class="filters" role="search" ref=${form} onSubmit=${apply}>
    <input type="search" name="q" data-search="" aria-label="Words of the question or the answer"
      placeholder="Search questions and answers" defaultValue=${chosen.q ?? ""} />
    <label>Order <select onChange=${(event) => set({ order: event.target.value === "newest" ? undefined : event.target.value })}>
      ${["newest", "largest"].map((each) => html`<option key=${each} value=${each} selected=${each === order}>${each} first</option>`)}
    </select></label>
    <button type="submit">Search</button>
    <details><summary>More filters</summary><div class="fields">
      ${TYPED.map((name) => html`<label key=${name} class="field"><span>${TITLES[name] ?? name}</span>
        <input name=${name} pattern=${name === "prefix" ? "[0-9a-fA-F]{0,64}" : undefined} list=${`known-${name}`} defaultValue=${chosen[name] ?? ""} onChange=${apply} />
        <datalist id=${`known-${name}`}>${(known[name] ?? []).map((each) => html`<option key=${each.name} value=${each.name} />`)}</datalist></label>`)}
    </div></details>
    <ul class="chips" aria-label="Chosen">${Object.entries(chosen).map(([name, value]) => html`<li key=${name}>
      <button type="button" class="chip" aria-label=${`Take away ${name} ${value}`} onClick=${() => set({ [name]: undefined })}>${name}: ${value || "(none)"} ×</button></li>`)}</ul>
  </form>`;
}

function Entries({ page, chosen, cursor, set }) {
  if (!page.data.length) {
    return Object.keys(chosen).length
      ? html`<${Empty} title="No entry matches">Take a choice away.<//>`
      : html`<${Empty} title="The cache is empty">Every complete answer is kept here. <a href="#/try">Ask something</a>.<//>`;
  }
  return html`<${Table} caption="Entries" columns=${COLUMNS} rows=${page.data} id=${(row) => row.key} to=${(row) => link("cache", row.key)}
      mark=${(row) => (row.question ? "asks" : "")} />
    <${Pages} first=${!cursor} more=${page.next} onFirst=${() => set({})} onMore=${() => set({ cursor: page.next })} />`;
}

function FlushChosen({ chosen, onDone }) {
  // words choose what is shown, not what is flushed
  const { tag, q, ...rest } = chosen;
  const given = { ...rest, ...(tag === undefined ? {} : { tags: [tag] }) };
  const any = Object.keys(given).length > 0;
  const words = Object.entries(chosen).filter(([name]) => name !== "q").map(([name, value]) => `${name} ${value || "(none)"}`).join(", ");
  return html`<${Flush} selector=${any ? given : { all: true }} onDone=${onDone}
    what=${any ? `Every entry with ${words}, in every tier and every process.` : "Every entry, in every tier and every process. Choose a model, a tag or another group first to flush less."} />`;
}

function size(bound) {
  return bound < 1024 * 1024 ? `${bound / 1024} KB` : `${bound / 1024 / 1024} MB`;
}

function age(bound) {
  return bound < 3600 ? `${bound / 60} min` : bound < 86400 ? `${bound / 3600} h` : `${whole(bound / 86400)} d`;
}
