// The page: who may see it, where we are, and the view of that place.

import { address, news, operator, remembered } from "./lib/api.js";
import { Component, html, render, useEffect, useRef, useState } from "./lib/html.js";
import { usePoll } from "./lib/poll.js";
import { link, useRoute } from "./lib/route.js";
import { Dialog } from "./parts/dialog.js";
import { Empty, Told } from "./parts/notes.js";
import { Entry } from "./views/entry.js";
import { Cache } from "./views/cache.js";
import { Job } from "./views/job.js";
import { Jobs } from "./views/jobs.js";
import { Overview } from "./views/overview.js";
import { Sessions, Users } from "./views/people.js";
import { Request } from "./views/request.js";
import { Requests } from "./views/requests.js";
import { Try } from "./views/try.js";

const VIEWS = {
  overview: { title: "Overview", list: Overview },
  requests: { title: "Requests", list: Requests, one: Request },
  users: { title: "Users", list: Users },
  sessions: { title: "Sessions", list: Sessions },
  cache: { title: "Cache", list: Cache, one: Entry },
  jobs: { title: "Jobs", list: Jobs, one: Job },
  try: { title: "Try it", list: Try },
};

let opened = false;

function App() {
  const route = useRoute();
  const [locked, setLocked] = useState(false);
  const [tries, setTries] = useState(0);
  useEffect(() => {
    const lock = () => setLocked(true);
    news.addEventListener("locked", lock);
    return () => news.removeEventListener("locked", lock);
  }, []);
  const open = (token) => {
    remembered.token = token;
    setLocked(false);
    setTries(tries + 1);
  };
  return html`<a class="skip" href="#content" onClick=${toContent}>Skip to the content</a>
    <${Head} view=${route.view} />
    <${Away} />
    <${Content} key=${`${tries} ${route.view} ${route.id} ${route.query.get("row")}`} route=${route} held=${locked} />
    <${Told} />
    ${locked ? html`<${Gate} again=${remembered.token !== ""} onToken=${open} />` : null}`;
}

function Head({ view }) {
  return html`<header class="head">
    <a class="brand" href="#/overview"><img src=${address("/ui/icon.svg")} alt="" width="22" height="22" />llmproxy</a>
    <nav aria-label="Views"><ul>
      ${Object.entries(VIEWS).map(([name, { title }]) => html`<li key=${name}>
        <a href=${link(name)} aria-current=${name === view ? "page" : undefined}>${title}</a>
      </li>`)}
    </ul></nav>
  </header>`;
}

function Content({ route, held }) {
  const view = VIEWS[route.view];
  const heading = useRef(null);
  const Shown = view && (route.id && view.one ? view.one : view.list);
  useEffect(() => {
    document.title = view ? `${view.title} · llmproxy` : "llmproxy";
    // of a page that has just come, the first stop of Tab is the link past the head
    if (opened) heading.current?.focus({ preventScroll: true });
    opened = true;
    scrollTo(0, 0);
  }, []);
  if (held) return html`<main id="content"></main>`;
  return html`<main id="content" tabindex="-1" ref=${heading}>
    <${Guarded}>${Shown ? html`<${Shown} id=${route.id} query=${route.query} />` : html`<${Lost} />`}<//>
  </main>`;
}

/** One view that fails must not take the others with it. */
class Guarded extends Component {
  state = { error: null };

  static getDerivedStateFromError(error) {
    return { error };
  }

  componentDidCatch(error) {
    console.error(error);
  }

  render({ children }, { error }) {
    if (!error) return children;
    return html`<${Empty} title="This view failed">${String(error?.message ?? error)}<//>`;
  }
}

function Lost() {
  return html`<${Empty} title="There is nothing here"><a href="#/overview">To the overview</a><//>`;
}

function Away() {
  const [away, setAway] = useState(false);
  useEffect(() => {
    const lost = () => setAway(true);
    const found = () => setAway(false);
    news.addEventListener("away", lost);
    news.addEventListener("back", found);
    return () => {
      news.removeEventListener("away", lost);
      news.removeEventListener("back", found);
    };
  }, []);
  return html`<div aria-live="assertive">${away ? html`<${Trying} />` : null}</div>`;
}

function Trying() {
  usePoll((signal) => fetch(address("/health"), { signal }).then(() => news.dispatchEvent(new Event("back"))), 2);
  return html`<p class="away">The proxy does not answer. What you see is from before; trying again…</p>`;
}

function Gate({ again, onToken }) {
  const [token, setToken] = useState("");
  const [wrong, setWrong] = useState(again);
  const submit = async (event) => {
    event.preventDefault();
    remembered.token = token;
    try {
      await operator("/api/cache/stats");
      onToken(token);
    } catch {
      setWrong(true);
    }
  };
  return html`<${Dialog} title="Admin token" fixed=${true} onClose=${() => {}}>
    <form onSubmit=${submit}>
      <p>This proxy has an admin token (LLMPROXY_ADMIN_TOKEN). It is kept until this tab is closed.</p>
      <label>Token <input type="password" autocomplete="off" required value=${token}
        onInput=${(event) => setToken(event.target.value)} /></label>
      ${wrong ? html`<p class="wrong" role="alert">This token is not the right one.</p>` : null}
      <div class="actions"><button class="main" type="submit">Open</button></div>
    </form>
  <//>`;
}

function toContent(event) {
  event.preventDefault();
  document.getElementById("content").focus();
}

addEventListener("keydown", (event) => {
  const typing = event.target.closest?.("input, textarea, select, dialog");
  if (event.key !== "/" || typing || event.ctrlKey || event.metaKey || event.altKey) return;
  const search = document.querySelector("[data-search]");
  if (search) {
    event.preventDefault();
    search.focus();
  }
});

const place = document.getElementById("app");
// what stands there says that this script did not come
place.replaceChildren();
render(html`<${App} />`, place);
