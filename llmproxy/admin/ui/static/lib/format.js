// Numbers, sizes and times as people read them.

const WHOLE = new Intl.NumberFormat("en");
const CLOCK = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const DAY = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });
const LONG_DAY = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", year: "numeric" });
const FULL = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "medium" });

export const NOTHING = "–";

const isNumber = (value) => typeof value === "number" && Number.isFinite(value);

export function whole(value) {
  return isNumber(value) ? WHOLE.format(Math.round(value)) : NOTHING;
}

/** A number with as many digits as say something. */
export function few(value) {
  if (!isNumber(value)) return NOTHING;
  if (value === 0) return "0";
  if (Math.abs(value) >= 100) return WHOLE.format(Math.round(value));
  return Math.abs(value) >= 10 ? value.toFixed(1) : value.toFixed(2);
}

/** A share of 1. */
export function percent(share) {
  if (!isNumber(share)) return NOTHING;
  const value = share * 100;
  return `${value > 0 && value < 10 ? value.toFixed(1) : Math.round(value)} %`;
}

export function bytes(value) {
  if (!isNumber(value)) return NOTHING;
  const units = ["B", "KB", "MB", "GB", "TB"];
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return unit === 0 ? `${whole(value)} B` : `${value >= 100 ? value.toFixed(0) : value.toFixed(1)} ${units[unit]}`;
}

/** A length of time, from microseconds to days. */
export function seconds(value) {
  if (!isNumber(value)) return NOTHING;
  if (value === 0) return "0 s";
  if (value < 0.001) return `${Math.max(1, Math.round(value * 1e6))} µs`;
  if (value < 0.01) return `${(value * 1000).toFixed(1)} ms`;
  if (value < 0.9995) return `${Math.round(value * 1000)} ms`;
  if (value < 10) return `${value.toFixed(2)} s`;
  if (value < 60) return `${value.toFixed(1)} s`;
  return long(value);
}

function long(value) {
  const total = Math.round(value);
  const [days, hours] = [Math.floor(total / 86400), Math.floor((total % 86400) / 3600)];
  const [minutes, rest] = [Math.floor((total % 3600) / 60), total % 60];
  if (days) return hours ? `${days} d ${hours} h` : `${days} d`;
  if (hours) return minutes ? `${hours} h ${minutes} min` : `${hours} h`;
  return rest ? `${minutes} min ${rest} s` : `${minutes} min`;
}

/** How long ago a moment was. Unix seconds. */
export function ago(moment, now = Date.now() / 1000) {
  if (!isNumber(moment)) return NOTHING;
  const past = now - moment;
  if (past < 1) return "now";
  if (past < 60) return `${Math.floor(past)} s ago`;
  if (past < 3600) return `${Math.floor(past / 60)} min ago`;
  if (past < 86400) return `${Math.floor(past / 3600)} h ago`;
  return `${Math.floor(past / 86400)} d ago`;
}

/** The time of day, with the day where it is not today. Unix seconds. */
export function clock(moment) {
  if (!isNumber(moment)) return NOTHING;
  const when = new Date(moment * 1000);
  const today = when.toDateString() === new Date().toDateString();
  return today ? CLOCK.format(when) : `${DAY.format(when)}, ${CLOCK.format(when)}`;
}

/** The day. Unix seconds. */
export function date(moment) {
  return isNumber(moment) ? LONG_DAY.format(new Date(moment * 1000)) : NOTHING;
}

export function full(moment) {
  return isNumber(moment) ? FULL.format(new Date(moment * 1000)) : NOTHING;
}

export function plural(number, one, many = `${one}s`) {
  return `${whole(number)} ${number === 1 ? one : many}`;
}
