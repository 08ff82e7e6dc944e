// Where we are: "#/requests/ID?cache=miss" is {view: "requests", id: "ID", query}.

import { useEffect, useState } from "./html.js";

export function read(hash = location.hash) {
  const [path, query = ""] = hash.replace(/^#\/?/, "").split("?");
  const [view, ...rest] = path.split("/");
  return { view: view || "overview", id: unescaped(rest.join("/")), query: new URLSearchParams(query) };
}

export function link(view, id = "", query = {}) {
  const given = Object.entries(query).filter(([, value]) => value !== undefined && value !== null);
  const search = new URLSearchParams(given).toString();
  return `#/${view}${id ? `/${encodeURIComponent(id)}` : ""}${search ? `?${search}` : ""}`;
}

export function go(...place) {
  location.hash = link(...place);
}

export function useRoute() {
  const [route, setRoute] = useState(() => read());
  useEffect(() => {
    const changed = () => setRoute(read());
    addEventListener("hashchange", changed);
    return () => removeEventListener("hashchange", changed);
  }, []);
  return route;
}

function unescaped(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
