// Charts over time, drawn by uPlot in the page's own colours, as wide as their place.

const { uPlot } = globalThis;
import { html, useEffect, useRef } from "../lib/html.js";

const DARK = matchMedia("(prefers-color-scheme: dark)");

/**
 * `data` is [times, values, ...] with Unix seconds; `series` are {label, color, fill}, colours by the names of CSS
 * variables; `stacked` puts each on those before it, and has it hold until the next value; `log` runs by powers of ten.
 * `span` is how many seconds are shown, up to now; `steps` are the lengths that the axis may be divided into.
 */
export function Chart({ data, series, label, height = 180, span = 180, stacked = false, log = false, spark = false, format, range, steps }) {
  const place = useRef(null);
  const plot = useRef(null);
  const shown = stacked ? stack(data) : data;
  const latest = useRef(shown);
  latest.current = shown;
  useEffect(() => {
    const make = () => {
      plot.current?.destroy();
      const options = drawing({ series, height, span, stacked, log, spark, format, range, steps }, place.current);
      plot.current = new uPlot(options, latest.current, place.current);
    };
    make();
    const watching = new ResizeObserver(([entry]) => {
      const width = Math.floor(entry.contentRect.width);
      if (width > 0 && width !== plot.current.width) plot.current.setSize({ width, height });
    });
    watching.observe(place.current);
    DARK.addEventListener("change", make);
    return () => {
      watching.disconnect();
      DARK.removeEventListener("change", make);
      plot.current.destroy();
    };
  }, [height, span, stacked, log, spark]);
  useEffect(() => plot.current.setData(shown));
  return html`<div class=${spark ? "chart spark" : "chart"} role="img" aria-label=${label} ref=${place}
    style=${{ height: `${height}px` }}></div>`;
}

/** The names of the colours beside what they stand for. */
export function Legend({ series }) {
  return html`<ul class="legend">
    ${series.map(({ label, color, value }) => html`<li key=${label}>
      <i class="swatch" style=${{ background: `var(${color})` }}></i>${label} <b>${value}</b>
    </li>`)}
  </ul>`;
}

function stack([times, ...rows]) {
  const sums = times.map(() => 0);
  const stacked = rows.map((row) => row.map((value, n) => (value === null ? null : (sums[n] += value))));
  // the highest first, so that each is painted over by those below it
  return [times, ...stacked.reverse()];
}

function drawing({ series, height, span, stacked, log, spark, format, range, steps }, place) {
  const color = reader(place);
  const drawn = (stacked ? [...series].reverse() : series).map((each) => ({
    label: each.label,
    stroke: color(each.color),
    fill: each.fill === false ? undefined : stacked ? color(each.color) : faint(color(each.color)),
    width: stacked ? 0 : 1.75,
    points: { show: false },
    paths: stacked ? uPlot.paths.stepped({ align: 1 }) : undefined,
  }));
  const lines = { stroke: color("--muted"), grid: { stroke: color("--line"), width: 1 }, ticks: { show: false } };
  const font = "11px system-ui, sans-serif";
  return {
    width: place.clientWidth || 100,
    height,
    legend: { show: false },
    cursor: { show: false },
    padding: spark ? [2, 0, 0, 0] : [8, 4, 0, 0],
    scales: {
      x: { time: true, range: () => [Date.now() / 1000 - span, Date.now() / 1000] },
      y: log
        ? { distr: 3, range: (_, low, high) => (low > 0 ? [10 ** Math.floor(Math.log10(low)), 10 ** Math.ceil(Math.log10(high) + 1e-9)] : [0.001, 1]) }
        : { range: (_, low, high) => range ?? [0, Math.max(high ?? 0, spark ? 0.001 : 1) * 1.1] },
    },
    axes: spark
      ? [{ show: false }, { show: false }]
      : [
          { ...lines, font, grid: { show: false }, size: 28, gap: 8, space: 90, values: (_, at) => at.map(span > 2 * 86_400 ? day : minute) },
          { ...lines, font, size: wide, gap: 4, space: 34, ...(log ? { splits: powers, filter: (_, at) => at } : {}), ...(steps ? { incrs: steps } : {}), values: (_, at) => at.map(format ?? String) },
        ],
    series: [{}, ...drawn],
  };
}

/** The axis is as wide as its longest name. */
const wide = (_, names) => Math.max(30, 12 + 6.4 * Math.max(0, ...(names ?? []).map((name) => String(name).length)));

const powers = (_, axis, low, high) => {
  const [first, last] = [low, high].map((value) => Math.round(Math.log10(value)));
  return Array.from({ length: last - first + 1 }, (_, n) => 10 ** (first + n));
};

const DAY = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });
const day = (at) => DAY.format(new Date(at * 1000));
const minute = (at) => new Date(at * 1000).toTimeString().slice(0, at % 60 ? 8 : 5);

/** Reads the page's colours as the canvas needs them: computed, for the scheme of the moment. */
function reader(place) {
  return (name) => {
    place.style.color = `var(${name})`;
    const found = getComputedStyle(place).color;
    place.style.color = "";
    return found;
  };
}

const faint = (color) => color.replace(/^rgb\((.*)\)$/, "rgba($1, 0.14)");
