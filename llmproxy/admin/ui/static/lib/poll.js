// Asking again and again, but only while somebody looks.

import { news } from "./api.js";
import { useEffect, useRef, useState } from "./html.js";

const AGAIN_SECONDS = 5;
const PASSES = (status) => status === 0 || status === 429 || status >= 500;

/**
 * What `load(signal)` gives: {data, error, reload}. Asked again `seconds` after each answer, at once when the tab is
 * shown again, and anew when `inputs` change, until when the former answer stays; with 0 seconds only then. What failed
 * for a while only is asked for again in any case: what was wrong is no longer said when it is over.
 */
export function usePoll(load, seconds, inputs = []) {
  const [state, setState] = useState({ data: null, error: null });
  const latest = useRef(null);
  useEffect(() => {
    const turns = poll(load, seconds, setState);
    latest.current = turns.now;
    return turns.stop;
  }, [seconds, ...inputs]);
  return { ...state, reload: () => latest.current?.() };
}

function poll(load, seconds, setState) {
  const stopped = new AbortController();
  let timer = 0;
  let running = false;
  // whether nobody answered
  let lost = false;

  async function turn() {
    clearTimeout(timer);
    if (running || document.hidden) return;
    running = true;
    let failed = null;
    try {
      const data = await load(stopped.signal);
      if (!stopped.signal.aborted) setState({ data, error: null });
    } catch (error) {
      failed = error;
      // what was known stays on the screen
      if (!stopped.signal.aborted) setState((before) => ({ data: before.data, error }));
    }
    running = false;
    lost = failed?.status === 0;
    const wait = seconds || (failed && PASSES(failed.status) ? AGAIN_SECONDS : 0);
    if (wait && !stopped.signal.aborted) timer = setTimeout(turn, wait * 1000);
  }

  const back = () => {
    if (lost) turn();
  };

  document.addEventListener("visibilitychange", turn);
  news.addEventListener("back", back);
  turn();
  return {
    now: turn,
    stop() {
      stopped.abort();
      clearTimeout(timer);
      document.removeEventListener("visibilitychange", turn);
      news.removeEventListener("back", back);
    },
  };
}
