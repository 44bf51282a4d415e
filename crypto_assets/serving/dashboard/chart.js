// The chart of a coin: candles, shaded holes, rolling volume, flags and the interval of forecasts.
//
// `load` sets all data and the view; it is for another coin or interval alone. What comes later is put in with `update`,
// which keeps the reader's zoom.

import {
  CandlestickSeries,
  createChart,
  createSeriesMarkers,
  CrosshairMode,
  LineSeries,
} from "./vendor/lightweight-charts.js";
import { amount, decimalsOf, fixed, minute, ms } from "./format.js";
import { Band, Holes } from "./layers.js";

const SHOWN_BARS = 240;
const FORECAST_EVERY_S = 300;
const seconds = (text) => ms(text) / 1000;

/** Colours of the style sheet, as the canvas needs them. */
function palette() {
  const style = getComputedStyle(document.documentElement);
  return new Proxy({}, { get: (_, name) => style.getPropertyValue(`--${name}`).trim() });
}

export class PriceChart {
  #bars = new Map();
  #flags = new Map();
  #forecasts = new Map();
  #step = 300;
  #first = null;
  #last = null;
  #farthest = null;
  #cursor = null;

  /**
   * In an element. `onPoint(time)` is called with the slot pointed at, null = none; `onSpan({ from, to })` with the times
   * in view; all in seconds.
   */
  constructor(element, onPoint, onSpan) {
    this.chart = createChart(element, {
      autoSize: true,
      // The library's own logo brings a style element, which the content security policy forbids: see `coin.js`.
      layout: { attributionLogo: false, background: { color: "transparent" } },
      crosshair: { mode: CrosshairMode.Normal },
      rightPriceScale: { borderVisible: false, scaleMargins: { top: 0.12, bottom: 0.08 } },
      timeScale: { timeVisible: true, secondsVisible: false, borderVisible: false, rightOffset: 4 },
      localization: { locale: "en-GB", timeFormatter: (t) => `${minute(1000 * t)} UTC` },
    });
    this.holes = this.chart.addCustomSeries(new Holes(), { priceScaleId: "holes" });
    this.band = this.chart.addCustomSeries(new Band(), {});
    this.candles = this.chart.addSeries(CandlestickSeries, { priceLineVisible: false });
    this.volume = null;
    this.markers = createSeriesMarkers(this.candles, []);
    this.chart.subscribeCrosshairMove(({ time }) => {
      this.#cursor = time ?? null;
      onPoint(time ?? null);
    });
    this.chart.timeScale().subscribeVisibleTimeRangeChange((range) => range && onSpan(range));
    this.paint();
  }

  /** Show bars, flags and forecasts of a coin at an interval of `step` seconds. */
  load({ bars, step, flags, forecasts }) {
    this.#step = step;
    this.#bars = new Map(bars.map((row) => [seconds(row.window_start), row]));
    this.#flags = new Map(flags.map((row) => [this.#slot(row.window_end), row]));
    this.#forecasts = new Map(forecasts.map((row) => [this.#slot(row.target_at), row]));
    const times = [...this.#bars.keys()];
    this.#last = times.at(-1) ?? null;
    this.#first = times[0] ?? null;
    this.#farthest = times.length ? Math.max(this.#last, ...this.#forecasts.keys()) : null;
    const grid = times.length ? slots(this.#first, this.#farthest, step) : [];
    const decimals = decimalsOf(bars.at(-1)?.close ?? 1);
    for (const series of [this.candles, this.band]) {
      series.applyOptions({
        priceFormat: { type: "custom", formatter: (value) => fixed(value, decimals), minMove: 10 ** -decimals },
      });
    }
    // Candles end at the newest bar, so that the next one is an update; the band reaches to the newest forecast.
    const past = grid.filter((time) => time <= this.#last);
    this.candles.setData(past.map((time) => this.#candle(time)));
    this.holes.setData(past.map((time) => this.#hole(time)));
    this.band.applyOptions({ reach: Math.max(1, FORECAST_EVERY_S / step) });
    this.band.setData(grid.map((time) => this.#interval(time)));
    this.#volumes(bars, past);
    this.chart.timeScale().applyOptions({ timeVisible: step < 86_400 });
    this.#mark();
    this.reset();
  }

  /** Put in a bar that came or changed. */
  update(row) {
    const time = seconds(row.window_start);
    const older = this.#last !== null && time < this.#last;
    const missed = this.#last === null ? [] : slots(this.#last + this.#step, time - this.#step, this.#step);
    this.#bars.set(time, row);
    this.#last = Math.max(time, this.#last ?? time);
    this.#first ??= time;
    for (const slot of [...missed, time]) {
      this.candles.update(this.#candle(slot), older);
      this.holes.update(this.#hole(slot), older);
      this.volume?.update(this.#rolling(slot), older);
    }
  }

  /** Put in all that has changed since; the view stays. */
  merge({ bars, flags, forecasts }) {
    const same = (row, other) => JSON.stringify(row) === JSON.stringify(other);
    for (const row of bars) if (!same(row, this.#bars.get(seconds(row.window_start)))) this.update(row);
    for (const row of flags) this.flag(row);
    for (const row of forecasts) if (!same(row, this.#forecasts.get(this.#slot(row.target_at)))) this.forecast(row);
  }

  /** Put in a flag. */
  flag(row) {
    this.#flags.set(this.#slot(row.window_end), row);
    this.#mark();
  }

  /** Put in a forecast. */
  forecast(row) {
    const time = this.#slot(row.target_at);
    const older = this.#farthest !== null && time < this.#farthest;
    this.#forecasts.set(time, row);
    this.#farthest = Math.max(time, this.#farthest ?? time);
    this.band.update(this.#interval(time), older);
  }

  /** What is known of a slot. */
  at(time) {
    return {
      bar: this.#bars.get(time),
      flag: this.#flags.get(time),
      forecast: this.#forecasts.get(time),
      hole: this.#isHole(time),
    };
  }

  /** Time of the newest bar; null without bars. */
  get last() {
    return this.#last;
  }

  /** All bars, oldest first. */
  get bars() {
    return inOrder(this.#bars);
  }

  /** All flags, oldest first. */
  get flags() {
    return inOrder(this.#flags);
  }

  /** All forecasts, the one for the earliest time first. */
  get forecasts() {
    return inOrder(this.#forecasts);
  }

  /** Holes of the data, as [start, end) in seconds. */
  get gaps() {
    const times = [...this.#bars.keys()].sort((a, b) => a - b);
    return times.flatMap((time, i) =>
      i && time - times[i - 1] > this.#step ? [[times[i - 1] + this.#step, time]] : [],
    );
  }

  /** The newest bars. */
  reset() {
    // Slots without a bar count, too: the grid has a place for each.
    const end = Math.max(this.#last ?? 0, this.#farthest ?? 0);
    const count = this.#first === null ? 0 : Math.round((end - this.#first) / this.#step) + 1;
    this.chart.timeScale().setVisibleLogicalRange({ from: Math.max(-1, count - SHOWN_BARS), to: count + 4 });
  }

  /** Show fewer (factor < 1) or more bars around the middle. */
  zoom(factor) {
    const range = this.chart.timeScale().getVisibleLogicalRange();
    if (!range) return;
    const [middle, half] = [(range.from + range.to) / 2, Math.max(4, ((range.to - range.from) / 2) * factor)];
    this.chart.timeScale().setVisibleLogicalRange({ from: middle - half, to: middle + half });
  }

  /** Move the view by a share of its width. */
  pan(share) {
    const range = this.chart.timeScale().getVisibleLogicalRange();
    if (!range) return;
    const by = share * (range.to - range.from);
    this.chart.timeScale().setVisibleLogicalRange({ from: range.from + by, to: range.to + by });
  }

  /** Point at the slot `by` places after the one pointed at; returns its time. */
  point(by) {
    if (this.#last === null) return null;
    const time = Math.min(
      this.#last,
      Math.max(this.#first, (this.#cursor ?? this.#last + this.#step) + by * this.#step),
    );
    this.#cursor = time;
    const price = this.#bars.get(time)?.close;
    if (price === undefined) this.chart.clearCrosshairPosition();
    else this.chart.setCrosshairPosition(price, time, this.candles);
    return (this.#cursor = time);
  }

  /** Take the colours of the theme. */
  paint() {
    const is = palette();
    const axis = { color: is.rule };
    this.chart.applyOptions({
      layout: {
        textColor: is.muted,
        fontFamily: getComputedStyle(document.body).fontFamily,
        panes: { separatorColor: is.rule },
      },
      grid: { vertLines: axis, horzLines: axis },
    });
    this.candles.applyOptions({
      upColor: is.up,
      downColor: is.down,
      borderUpColor: is.up,
      borderDownColor: is.down,
      wickUpColor: is.up,
      wickDownColor: is.down,
    });
    this.holes.applyOptions({ color: is.shade });
    this.band.applyOptions({ color: is.band });
    this.volume?.applyOptions({ color: is.line });
    this.#mark();
  }

  remove() {
    this.chart.remove();
  }

  /** Start of the bar that ends at, or contains, a time: there its flag and the outcome of its forecast are. */
  #slot(end) {
    return Math.floor((seconds(end) - 1) / this.#step) * this.#step;
  }

  #isHole(time) {
    return !this.#bars.has(time) && this.#last !== null && time < this.#last;
  }

  #candle(time) {
    const row = this.#bars.get(time);
    return row ? { time, open: row.open, high: row.high, low: row.low, close: row.close } : { time };
  }

  #hole(time) {
    return this.#isHole(time) ? { time, hole: true } : { time };
  }

  #interval(time) {
    const row = this.#forecasts.get(time);
    return row ? { time, lower: row.lower_90, upper: row.upper_90 } : { time };
  }

  #rolling(time) {
    const value = this.#bars.get(time)?.volume_24h_usd ?? null;
    return value === null ? { time } : { time, value };
  }

  #volumes(bars, grid) {
    if (this.volume) this.chart.removeSeries(this.volume);
    this.volume = null;
    if (!bars.some((row) => row.volume_24h_usd !== null)) return;
    this.volume = this.chart.addSeries(
      LineSeries,
      {
        lineWidth: 1,
        color: palette().line,
        priceFormat: { type: "custom", formatter: amount, minMove: 1 },
        priceLineVisible: false,
        lastValueVisible: false,
      },
      1,
    );
    this.volume.setData(grid.map((time) => this.#rolling(time)));
    this.chart.panes()[1]?.setStretchFactor(0.22);
  }

  #mark() {
    const is = palette();
    const found = [...this.#flags].filter(([time]) => this.#bars.has(time)).sort(([a], [b]) => a - b);
    this.markers.setMarkers(
      found.map(([time, row]) => ({
        time,
        position: "aboveBar",
        shape: "arrowDown",
        color: is.band,
        size: 0.8,
        text: sizeOf(row),
      })),
    );
  }
}

/** Size of a flagged move by the score that fired: against the market, or the coin's own. */
function sizeOf(row) {
  const alone = row.detectors?.includes("market") && !row.detectors.includes("robust_z");
  const size = alone ? row.size_market_sigma : row.size_sigma;
  if (size === null || size === undefined) return "";
  return `${size.toFixed(1)} σ${alone ? " market" : ""}`;
}

/** Rows of a map by time, in the order of time. */
const inOrder = (rows) => [...rows].sort(([a], [b]) => a - b).map(([, row]) => row);

/** Times from `first` to `last`, both included. */
function slots(first, last, step) {
  return Array.from({ length: Math.max(0, Math.floor((last - first) / step) + 1) }, (_, i) => first + i * step);
}
