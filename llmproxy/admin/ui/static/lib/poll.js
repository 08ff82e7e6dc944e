// Asking again and again, but only while somebody looks.

import { useEffect, useRef, useState } from "./html.js";

/**
 * What `load(signal)` gives: {data, error, reload}. Asked again `seconds` after each answer, at once when the tab is
 * shown again, and anew when `inputs` change, until when the former answer stays; with 0 seconds only then.
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

  async function turn() {
    clearTimeout(timer);
    if (running || document.hidden) return;
    running = true;
    try {
      const data = await load(stopped.signal);
      if (!stopped.signal.aborted) setState({ data, error: null });
    } catch (error) {
      // what was known stays on the screen
      if (!stopped.signal.aborted) setState((before) => ({ data: before.data, error }));
    }
    running = false;
    if (seconds && !stopped.signal.aborted) timer = setTimeout(turn, seconds * 1000);
  }

  document.addEventListener("visibilitychange", turn);
  turn();
  return {
    now: turn,
    stop() {
      stopped.abort();
      clearTimeout(timer);
      document.removeEventListener("visibilitychange", turn);
    },
  };
}
