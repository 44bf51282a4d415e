// One coin: its candles with flags, holes and forecasts, and the figures behind them.

import { PriceChart } from "../chart.js";
import { h, svg } from "../dom.js";
import { flagTable, newestFirst } from "../flags.js";
import { count, fixed, minute, ms, price, share, time } from "../format.js";
import {
  absent,
  dayChange,
  explanation,
  facts,
  fired,
  large,
  maybe,
  notReported,
  pct,
  provenance,
  similar,
} from "../parts.js";
import { ask } from "../store.js";

const INTERVALS = {
  "1m": { step: 60, words: "1-minute", limit: 1_440 },
  "5m": { step: 300, words: "5-minute", limit: 864 },
  "1h": { step: 3_600, words: "1-hour", limit: 720 },
  "1d": { step: 86_400, words: "1-day", limit: 1_000 },
};
const HORIZONS = { "1h": "1 h ahead", "5m": "5 min ahead", none: "no forecast" };
const MOST = 1_000;
const DAY_MS = 86_400_000;
const FORECAST_DAYS = 3;

/** Show it; see `app.show`. */
export async function show(root, { store, params, rest, signal, title }) {
  const coin = rest[0] ?? "";
  const row = store.data.prices.find((other) => other.coin_id === coin);
  if (!row) {
    root.append(unknownCoin(store, coin));
    return;
  }
  title(`${row.name ?? coin} ${price(row.price_usd)}`);
  const page = pageOf(store, coin, params);

  const head = h("div", { class: "coinhead" });
  const legend = h("p", { class: "legend", role: "status", "aria-live": "off" });
  const canvas = h("div", { class: "canvas", "aria-hidden": "true" });
  const summary = h("figcaption", { id: "summary" });
  const holder = h(
    "div",
    { class: "holder", tabindex: "0", role: "group", "aria-label": KEYS, "aria-describedby": "summary" },
    canvas,
  );
  const figure = h("figure", { class: "chart" }, toolbar(page), legend, holder, summary);
  const flags = flagTable(store, "Slots whose score is above the threshold, newest first", { coins: false });
  const source = h("div");
  root.append(head, figure, h("h2", {}, "Flags"), flags.element, source);
  const drawHead = () => head.replaceChildren(...heading(store, coin));
  drawHead();

  const span = h("span", { class: "span" });
  const chart = new PriceChart(
    canvas,
    (at) => drawLegend(at),
    ({ from, to }) => span.replaceChildren(`In view: ${minute(1000 * from)} to ${minute(1000 * to)} UTC.`),
  );
  signal.addEventListener("abort", () => chart.remove());
  addEventListener("themechange", () => chart.paint(), { signal });
  const drawLegend = (at) => legend.replaceChildren(...legendOf(chart, at ?? chart.last, page));
  controls(figure, holder, legend, chart, drawLegend);

  const drawData = () => {
    flags.update(newestFirst(chart.flags));
    summary.replaceChildren(...summaryOf(chart, page, span));
    drawLegend(null);
  };
  /** Load everything; again after changes were missed, when the view stays as it is. */
  const load = async ({ again = false } = {}) => {
    try {
      const found = await fetchAll(page);
      if (signal.aborted) return;
      if (again) chart.merge(found);
      else chart.load({ ...found, step: page.step });
      source.replaceChildren(provenance(store, found.about.table, found.about));
      drawData();
    } catch (error) {
      summary.replaceChildren(h("span", { role: "alert" }, `The bars could not be loaded: ${error.message}.`));
    }
  };
  follow(page, chart, drawData, signal);
  store.on("price", (news) => news.row.coin_id === coin && drawHead(), signal);
  store.on("board", drawHead, signal);
  store.on("reset", () => load({ again: true }), signal);
  await load();
}

/** What the address asks for. */
function pageOf(store, coin, params) {
  const interval = params.get("interval") in INTERVALS ? params.get("interval") : "5m";
  const chosen = params.get("horizon") in HORIZONS ? params.get("horizon") : "1h";
  return { store, coin, interval, horizon: interval === "1d" ? "none" : chosen, ...INTERVALS[interval] };
}

/** Put what is committed into the chart, and draw what is around it. */
function follow({ store, coin, interval, horizon }, chart, draw, signal) {
  const put = {
    bar: (news) => news.interval === interval && chart.update,
    anomaly: () => chart.flag,
    prediction: (news) => news.row.horizon === horizon && chart.forecast,
  };
  for (const [kind, how] of Object.entries(put)) {
    const take = (news) => {
      const act = news.row.coin_id === coin && how(news);
      if (!act) return;
      act.call(chart, news.row);
      draw();
    };
    store.on(kind, take, signal);
  }
}

const KEYS =
  "Price chart. Left and right move along the bars, with Shift the view; plus and minus zoom; Home and End go to the oldest and newest bar.";

async function fetchAll({ coin, interval, horizon, limit }) {
  const id = encodeURIComponent(coin);
  const bars = await ask(`v1/bars/${id}?interval=${interval}&limit=${limit}`);
  const none = { data: [] };
  if (!bars.data.length) return { bars: [], flags: [], forecasts: [], about: bars.provenance };
  const oldest = ms(bars.data[0].window_start);
  const recent = new Date(Math.max(oldest, ms(bars.data.at(-1).window_end) - FORECAST_DAYS * DAY_MS)).toISOString();
  const [flags, forecasts] = await Promise.all([
    ask(`v1/anomalies?coin=${id}&flagged=true&from=${new Date(oldest).toISOString()}&limit=${MOST}`).catch(() => none),
    horizon === "none"
      ? none
      : ask(`v1/predictions/${id}?horizon=${horizon}&from=${recent}&limit=${MOST}`).catch(() => none),
  ]);
  return { bars: bars.data, flags: flags.data, forecasts: forecasts.data, about: bars.provenance };
}

// --- around the chart ---------------------------------------------------------------------------------------------

function heading(store, coin) {
  const row = store.data.prices.find((other) => other.coin_id === coin);
  const leader = store.data.leaderboard.find((other) => other.coin_id === coin);
  const said = notReported(row);
  return [
    h(
      "div",
      { class: "name" },
      h("h1", {}, row.name ?? coin, " ", h("span", { class: "symbol" }, row.symbol)),
      h("p", { class: "price" }, price(row.price_usd), h("span", { class: "unit" }, "USD")),
    ),
    facts([
      ["1 h", shown(maybe(row.change_1h_pct, pct, said), "%")],
      ["24 h", shown(dayChange(row, store.data.leaderboard), "%")],
      [
        "24 h low to high",
        leader ? `${price(leader.low_24h)} to ${price(leader.high_24h)}` : absent("no bars of 24 h yet"),
      ],
      ["Volume 24 h", shown(maybe(row.volume_24h_usd, large, said))],
      ["Market cap", shown(maybe(row.market_cap_usd, large, said))],
      ["Quote of", `${time(row.last_updated_at)} UTC`],
    ]),
  ];
}

/** A table's value outside a table: a missing one with its reason. */
function shown(value, unit = "") {
  if (value.reason !== undefined) return absent(value.reason);
  const mark = value.way ? h("span", { class: "mark", "aria-hidden": "true" }, value.mark) : "";
  const note = value.note && h("small", {}, ` ${value.note}`);
  return [h("span", { class: value.way ?? "" }, mark, value.text, unit && ` ${unit}`), note || ""];
}

function toolbar({ coin, interval, horizon }) {
  const href = (changes) =>
    `#/coin/${encodeURIComponent(coin)}?${new URLSearchParams({ interval, horizon, ...changes })}`;
  const link = (group, name, text, current) =>
    h("a", { id: `${group}-${name}`, href: href({ [group]: name }), "aria-current": current && "true" }, text);
  const act = (name, text, label) =>
    h("button", { type: "button", "data-act": name, "aria-label": label, title: label }, text);
  return h(
    "div",
    { class: "toolbar" },
    h(
      "div",
      { class: "choice", role: "group", "aria-label": "Interval" },
      Object.keys(INTERVALS).map((name) => link("interval", name, name, name === interval)),
    ),
    h(
      "div",
      { class: "choice", role: "group", "aria-label": "Forecast" },
      interval === "1d"
        ? h("span", { class: "hint" }, "forecasts reach at most 1 h ahead")
        : Object.entries(HORIZONS).map(([name, text]) => link("horizon", name, text, name === horizon)),
    ),
    h(
      "div",
      { class: "acts", role: "group", "aria-label": "View" },
      act("back", "‹", "Earlier"),
      act("on", "›", "Later"),
      act("out", "−", "Show more bars"),
      act("in", "+", "Show fewer bars"),
      act("reset", "Newest", "Newest bars"),
    ),
  );
}

function controls(figure, holder, legend, chart, drawLegend) {
  const acts = {
    back: () => chart.pan(-0.25),
    on: () => chart.pan(0.25),
    in: () => chart.zoom(0.7),
    out: () => chart.zoom(1.4),
    reset: () => chart.reset(),
  };
  figure.addEventListener("click", (event) => acts[event.target.dataset?.act]?.());
  const step = (by) => {
    legend.setAttribute("aria-live", "polite"); // spoken when moved by key, not while a pointer passes over
    drawLegend(chart.point(by));
  };
  const keys = {
    ArrowLeft: (e) => (e.shiftKey ? acts.back() : step(-1)),
    ArrowRight: (e) => (e.shiftKey ? acts.on() : step(1)),
    "+": acts.in,
    "=": acts.in,
    "-": acts.out,
    Home: () => step(-Infinity),
    End: () => {
      acts.reset();
      step(Infinity);
    },
  };
  holder.addEventListener("keydown", (event) => {
    if (!(event.key in keys) || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    keys[event.key](event);
  });
  holder.addEventListener("pointerenter", () => legend.setAttribute("aria-live", "off"));
}

function legendOf(chart, at, { step, horizon }) {
  if (at === null) return ["No bars."];
  const { bar, flag, forecast, hole } = chart.at(at);
  const part = (label, value) => h("span", {}, h("span", { class: "label" }, label), value);
  const span = h(
    "b",
    {},
    step < 86_400
      ? `${minute(1000 * at)} to ${minute(1000 * (at + step)).slice(11)} UTC`
      : `${minute(1000 * at).slice(0, 10)} UTC`,
  );
  return [
    span,
    ...(bar
      ? [
          ["O", bar.open],
          ["H", bar.high],
          ["L", bar.low],
          ["C", bar.close],
        ].map(([label, value]) => part(label, price(value)))
      : []),
    bar
      ? part(
          "samples",
          `${count(bar.sample_count)}${bar.expected_count === null ? "" : ` of ${count(bar.expected_count)}`}`,
        )
      : "",
    hole ? "no sample in this window" : "",
    bar && !bar.is_closed ? h("em", {}, "not closed") : "",
    forecast && horizon !== "none"
      ? part("90 % interval", `${price(forecast.lower_90)} to ${price(forecast.upper_90)}`)
      : "",
    flag ? h("span", { class: "flagged" }, flagText(flag)) : "",
  ].filter(Boolean);
}

/** Median, measured coverage and skill of a forecast, in words; nothing for rows of the first version. */
function held({ median, coverage_7d: week, coverage_28d: month, skill_verdict: skill, null_reason: reason }) {
  if (median === null || median === undefined) return "";
  const days = [
    [week, 7],
    [month, 28],
  ].filter(([covered]) => covered !== null);
  const measured = days.length
    ? `such intervals held ${days.map(([covered, n]) => `${share(covered)} of the outcomes of ${n} days`).join(", ")}`
    : reason;
  return `, median ${price(median)}; ${measured}; point forecast: ${skill}`;
}

/** Which score fired, and why: `flag by its own return (6.1 own σ, 0.4 market σ): 5 min return +6.1 σ; like …`. */
function flagText(flag) {
  const size = (value, name) => (value === null || value === undefined ? "" : `${fixed(value, 1)} ${name} σ`);
  const sizes = [size(flag.size_sigma, "own"), size(flag.size_market_sigma, "market")].filter(Boolean).join(", ");
  const by = fired(flag) ? ` by ${fired(flag)}` : "";
  const data = flag.suspicion ? `. Its data may be at fault: ${flag.suspicion.replaceAll("_", " ")}.` : "";
  return `flag${by}${sizes && ` (${sizes})`}: ${[explanation(flag), similar(flag)].filter(Boolean).join("; ")}${data}`;
}

function summaryOf(chart, { words, horizon, store, coin }, span) {
  const { bars, flags, forecasts, gaps } = chart;
  if (!bars.length) return ["No bars of this interval yet."];
  const highs = Math.max(...bars.map((bar) => bar.high));
  const lows = Math.min(...bars.map((bar) => bar.low));
  const longest = gaps.reduce((a, b) => (b[1] - b[0] > a[1] - a[0] ? b : a), [0, 0]);
  const holes = gaps.length
    ? `${count(gaps.length)} ${gaps.length === 1 ? "hole" : "holes"} (shaded), the longest from ${minute(1000 * longest[0])} to ${minute(1000 * longest[1])}.`
    : "No holes.";
  const volume = bars.some((bar) => bar.volume_24h_usd !== null)
    ? "Below: rolling 24 h volume."
    : `No volume: ${notReported(store.data.prices.find((row) => row.coin_id === coin))}.`;
  const newest = forecasts.at(-1);
  const forecast = newest
    ? `Forecast for ${minute(newest.target_at)} UTC: ${price(newest.predicted_price)}, 90 % interval ${price(newest.lower_90)} to ${price(newest.upper_90)}${held(newest)} (${newest.model_name} ${newest.model_version}, ${newest.mode}).`
    : horizon === "none"
      ? ""
      : "No forecasts in this span.";
  return [
    h(
      "span",
      {},
      `${count(bars.length)} ${words} bars from ${minute(bars[0].window_start)} to ${minute(bars.at(-1).window_end)} UTC, ${price(lows)} to ${price(highs)} USD. ` +
        `${count(flags.length)} ${flags.length === 1 ? "flag" : "flags"}. ${holes} ${volume} ${forecast} `,
      span,
    ),
    h(
      "a",
      { class: "attribution", href: "https://www.tradingview.com/", rel: "noopener", target: "_blank" },
      svg(
        "svg",
        { class: "tv", viewBox: "0 0 35 19", width: 28, height: 15, "aria-hidden": "true" },
        svg("path", { d: TRADINGVIEW }),
      ),
      "Charts by TradingView",
    ),
  ];
}

const TRADINGVIEW = "M14 2H2v6h6v9h6V2Zm12 15h-7l6-15h7l-6 15Zm-7-9a3 3 0 1 0 0-6 3 3 0 0 0 0 6Z";

function unknownCoin(store, coin) {
  return h(
    "section",
    { class: "card" },
    h("h1", {}, "No such coin"),
    h(
      "p",
      {},
      `gold.latest_prices has no row of “${coin}”. It has: `,
      store.data.prices.flatMap((row, i) => [
        i ? ", " : "",
        h("a", { href: `#/coin/${encodeURIComponent(row.coin_id)}` }, row.coin_id),
      ]),
      ".",
    ),
  );
}
