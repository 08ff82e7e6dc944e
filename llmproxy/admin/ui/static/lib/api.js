// Calls to the proxy. The admin token and a caller's key live in this tab's session and nowhere else.

const TOKEN = "llmproxy.admin-token";
const KEY = "llmproxy.api-key";

/** Where the proxy is: what the page's own address is relative to, also below a path of another server. */
export const HOME = new URL(location.pathname.endsWith("/") ? ".." : ".", location.href);

/** The whole address of a path of the proxy's, like "/v1/models". */
export const address = (path) => HOME.href + path.slice(1);

/** Tells what every call finds out: "locked" (the token is missing or wrong), "away", "back". */
export const news = new EventTarget();

/** An answer that is an error, or none at all (status 0). */
export class Failure extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

export const remembered = {
  get token() {
    return sessionStorage.getItem(TOKEN) ?? "";
  },
  set token(value) {
    sessionStorage.setItem(TOKEN, value);
  },
  get key() {
    return sessionStorage.getItem(KEY) ?? "";
  },
  set key(value) {
    sessionStorage.setItem(KEY, value);
  },
};

/** A document of the operator's API. Throws Failure. */
export async function operator(path, { method = "GET", body, signal } = {}) {
  const headers = body === undefined ? {} : { "content-type": "application/json" };
  const text = body === undefined ? undefined : JSON.stringify(body);
  return (await operatorAnswer(path, { method, body: text, headers, signal })).json();
}

/** The same as it came, for who needs its bytes. Throws Failure. */
export async function operatorAnswer(path, options = {}) {
  const answer = await sent(path, options, remembered.token);
  if (answer.status === 401) news.dispatchEvent(new Event("locked"));
  // /api/health says "down" with 503, and what is down
  if (!answer.ok && !(path === "/api/health" && answer.status === 503)) throw await failure(answer);
  return answer;
}

/** An answer as a caller gets it, whatever its status. Throws Failure where there is none. */
export function caller(path, options = {}) {
  return sent(path, options, remembered.key);
}

/** The same as a document. Throws Failure. */
export async function callerDocument(path, options = {}) {
  const answer = await caller(path, options);
  if (!answer.ok) throw await failure(answer);
  return answer.json();
}

/** What went wrong, in the words of the error's envelope. */
export async function failure(answer) {
  let message = "";
  try {
    const document = await answer.json();
    const error = document.error;
    message = typeof error === "string" ? error : String(error?.message ?? "");
  } catch {
    // not ours: the status has to do
  }
  return new Failure(message || `The answer has status ${answer.status}.`, answer.status);
}

/** "a=1&b=2" from what has a value. */
export function query(values) {
  const given = Object.entries(values).filter(([, value]) => value !== undefined && value !== null);
  return new URLSearchParams(given.map(([name, value]) => [name, String(value)])).toString();
}

async function sent(path, options, secret) {
  const headers = new Headers(options.headers);
  if (secret) headers.set("authorization", `Bearer ${secret}`);
  let answer;
  try {
    // no mode of caching: "no-store" would have the browser send Cache-Control, and the proxy would not look it up
    answer = await fetch(address(path), { ...options, headers, credentials: "omit" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    news.dispatchEvent(new Event("away"));
    throw new Failure("The proxy does not answer.", 0);
  }
  news.dispatchEvent(new Event("back"));
  return answer;
}
