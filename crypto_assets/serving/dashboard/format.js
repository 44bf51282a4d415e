// Numbers, times and durations as text. English notation, UTC throughout, a true minus sign.

const MINUS = "\u2212";
const NO_BREAK = "\u00a0";
const INTEGER = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });
const FIXED = new Map();

/** A number with exactly so many decimals. */
export function fixed(value, decimals) {
  if (!FIXED.has(decimals)) {
    const digits = { minimumFractionDigits: decimals, maximumFractionDigits: decimals };
    FIXED.set(decimals, new Intl.NumberFormat("en-US", digits));
  }
  return FIXED.get(decimals).format(value).replace("-", MINUS);
}

/** A count. */
export const count = (value) => INTEGER.format(value).replace("-", MINUS);

/** Decimals that a price deserves: cents from 10 up, four below, four significant digits below 1. */
export function decimalsOf(value) {
  const size = Math.abs(value);
  if (size >= 10 || size === 0) return 2;
  if (size >= 1) return 4;
  return Math.min(18, 3 - Math.floor(Math.log10(size)));
}

/** A price in USD, without the sign of the currency. */
export const price = (value) => fixed(value, decimalsOf(value));

/** A signed percentage. */
export function percent(value, decimals = 2) {
  const text = fixed(value, decimals);
  return value > 0 && Number(value.toFixed(decimals)) !== 0 ? `+${text}` : text;
}

/** A share of one as a percentage. */
export const share = (value, decimals = 1) => `${fixed(100 * value, decimals)} %`;

const SCALES = [
  [1e12, "T"],
  [1e9, "B"],
  [1e6, "M"],
  [1e3, "k"],
];

/** A large amount in USD: `38.61 B`. */
export function amount(value) {
  const [scale, unit] = SCALES.find(([least]) => Math.abs(value) >= least) ?? [1, ""];
  return `${fixed(value / scale, 2)}${unit && `\u00a0${unit}`}`;
}

/** A duration, in its two largest units. */
export function duration(seconds) {
  const s = Math.max(0, Math.floor(seconds));
  if (s < 60) return `${s} s`;
  const [d, hours, minutes] = [Math.floor(s / 86400), Math.floor(s / 3600) % 24, Math.floor(s / 60) % 60];
  if (d >= 30) return `${count(d)} d`;
  if (d) return hours ? `${d} d ${hours} h` : `${d} d`;
  if (hours) return minutes ? `${hours} h ${minutes} min` : `${hours} h`;
  return s % 60 && minutes < 10 ? `${minutes} min ${s % 60} s` : `${minutes} min`;
}

/** `2026-11-29 23:59:59`. */
export const time = (moment) => new Date(moment).toISOString().slice(0, 19).replace("T", NO_BREAK);

/** `2026-11-29 23:59`. */
export const minute = (moment) => time(moment).slice(0, 16);

/** `2026-11-29`. */
export const day = (moment) => time(moment).slice(0, 10);

/** Milliseconds since 1970 of a time as the API spells it. */
export const ms = (text) => Date.parse(text);
