// The last minutes of the counters, seen from the moment on when somebody looked. One for the page.

const KINDS = ["hits", "joins", "misses", "bypasses", "only_if_cached"];
const KEPT = 200;

/** Rates from counters: `add` takes each reading; `data` is [times, and for each of KINDS how many a second]. */
export class Live {
  constructor() {
    this.data = [[], ...KINDS.map(() => [])];
    this.queue = [[], [], []];
    this.last = null;
  }

  add(counts, at) {
    const now = KINDS.map((name) => counts[name] + (name === "hits" ? counts.stale : 0));
    const before = this.last;
    this.last = { at, now };
    if (!before || at <= before.at) return;
    const [passed, gap] = [at - before.at, at - before.at > 5];
    // a program that was started anew counts from zero again; after a pause nobody knows when it was
    const rates = now.map((value, n) => (gap || value < before.now[n] ? null : (value - before.now[n]) / passed));
    keep(this.data, [at, ...rates]);
  }

  addQueue({ waiting, running }, at) {
    keep(this.queue, [at, running ?? null, waiting ?? null]);
  }

  /** Of each kind, requests a second in the last `seconds`; and of all. */
  rate(seconds = 5) {
    const [times, ...rows] = this.data;
    const from = (times.at(-1) ?? 0) - seconds;
    const start = times.findIndex((at) => at > from);
    const mean = (row) => row.slice(start).reduce((sum, value) => sum + (value ?? 0), 0) / Math.max(1, row.length - start);
    const each = start < 0 ? KINDS.map(() => 0) : rows.map(mean);
    return { each, all: each.reduce((sum, value) => sum + value, 0) };
  }
}

function keep(rows, values) {
  rows.forEach((row, n) => {
    row.push(values[n]);
    if (row.length > KEPT) row.shift();
  });
}
