// Parts that several views share: where data comes from, how old it is, what is missing, small charts.

import { h, hidden, svg } from "./dom.js";
import { amount, count, minute, ms, percent, price } from "./format.js";
import { change, missing, noted, num } from "./table.js";

/** Name of a coin as a link to its page. */
export function coinLink(row) {
  const name = row.name ?? row.symbol ?? row.coin_id;
  return h(
    "a",
    { class: "coin", href: `#/coin/${encodeURIComponent(row.coin_id)}` },
    h("b", {}, name),
    h("span", { class: "symbol" }, name === row.symbol ? "" : row.symbol),
  );
}

/** A row with the name of its coin. */
export const named = (store, row) => ({
  name: store.data.prices.find((other) => other.coin_id === row.coin_id)?.name,
  ...row,
});

/** Dagster's address; null while it does not run. */
export function dagster(store) {
  return store.board?.provenance.ui?.replace(/\/runs\/?$/, "") ?? null;
}

/** Text as a link to an asset in Dagster, while that runs. */
export function linked(store, asset, text) {
  const ui = dagster(store);
  return ui && asset ? h("a", { href: `${ui}/assets/${asset}` }, text) : text;
}

/** Table, version and commit of what is shown, with Dagster's asset and run. */
export function provenance(store, table, about = store.about(table)) {
  if (!about) return h("p", { class: "source" }, `${table}: not written yet`);
  const ui = dagster(store);
  const links = ui
    ? [
        h("a", { href: `${ui}/assets/${table.replace(".", "/")}` }, "asset"),
        about.run_url && h("a", { href: about.run_url }, "run"),
      ]
    : [h("span", { title: "crypto-assets up or crypto-assets ui starts it" }, "Dagster is not running")];
  return h(
    "p",
    { class: "source" },
    h("span", {}, table),
    h("span", {}, `version ${count(about.table_version)}`),
    h("span", {}, `committed ${minute(about.committed_at)} UTC`),
    links,
  );
}

const OLD_S = 15 * 60;

/** How old the newest quote is, and whether that is too old. */
export function age(store) {
  const newest = store.newest();
  if (!newest) return null;
  const about = store.about("gold.latest_prices");
  const report = store.data.state.report;
  const judged = about?.freshness === "kept" || about?.freshness === "broken";
  const promised = judged ? report.promised_s : null;
  return { ...newest, promised, old: newest.age > (promised ?? OLD_S) };
}

/** A value of a coin that may be missing. */
export const maybe = (value, show, reason) => (value === null || value === undefined ? missing(reason) : show(value));

export const usd = (value) => num(price(value));
export const large = (value) => num(amount(value));
export const pct = (value) => change(value, percent(value));
export const notReported = (row) => `not reported by ${row.source}`;

/** Change over 24 h: the source's, else that of the bars. */
export function dayChange(row, leaders) {
  if (row.change_24h_pct !== null) return pct(row.change_24h_pct);
  const leader = leaders.find((other) => other.coin_id === row.coin_id);
  if (leader?.change_24h !== null && leader?.change_24h !== undefined) {
    const since = leader.price_24h_ago_at;
    return noted(pct(100 * leader.change_24h), since ? `from bars, since ${minute(since)} UTC` : "from bars");
  }
  return missing(`${notReported(row)}; ${leader ? "no bar within 10 min of 24 h before" : "no bars yet"}`);
}

const [WIDE, HIGH, EDGE] = [132, 30, 2];

/** A line of [time, value] pairs, broken where a step is missing. */
export function sparkline(points, stepMs, label) {
  if (points.length < 2)
    return h("span", { class: "missing", title: "fewer than two bars" }, "–", hidden("fewer than two bars"));
  const times = points.map(([at]) => ms(at));
  const values = points.map(([, value]) => value);
  const [first, last, least, most] = [times[0], times.at(-1), Math.min(...values), Math.max(...values)];
  const x = (t) => (EDGE + ((t - first) / (last - first || 1)) * (WIDE - 2 * EDGE - 2)).toFixed(1);
  const y = (v) => (HIGH - EDGE - ((v - least) / (most - least || 1)) * (HIGH - 2 * EDGE)).toFixed(1);
  const path = times
    .map((t, i) => `${i && t - times[i - 1] <= 2.5 * stepMs ? "L" : "M"}${x(t)} ${y(values[i])}`)
    .join("");
  return svg(
    "svg",
    {
      class: "spark",
      viewBox: `0 0 ${WIDE} ${HIGH}`,
      width: WIDE,
      height: HIGH,
      role: "img",
      "aria-label": label(points),
    },
    svg("path", { d: path }),
    svg("circle", { cx: x(last), cy: y(values.at(-1)), r: 1.8 }),
  );
}

/** Words of a sparkline. */
export function sparkLabel(points) {
  const values = points.map(([, value]) => value);
  return `${points.length} bars since ${minute(points[0][0])} UTC, ${price(Math.min(...values))} to ${price(Math.max(...values))} USD`;
}

/** The newest rows of `ml.promotions` that serve, by model. */
export function serving(store) {
  const now = store.now();
  const found = new Map();
  for (const row of store.data.promotions) {
    if (row.decision !== "promoted" || ms(row.effective_from) > now) continue;
    const other = found.get(row.model);
    if (!other || ms(row.effective_from) >= ms(other.effective_from)) found.set(row.model, row);
  }
  return found;
}

/** Alerts without a later recovery of their cause and partition, newest first. */
export function firing(rows) {
  const newest = new Map();
  for (const row of rows) {
    const key = `${row.cause} ${row.partition_key ?? ""}`;
    if (!newest.has(key) || ms(row.at) >= ms(newest.get(key).at)) newest.set(key, row);
  }
  return [...newest.values()].filter((row) => row.state === "firing").sort((a, b) => ms(b.at) - ms(a.at));
}

/** Whether a version was trained, rather than being a plain rule that serves until one is. */
export const isTrained = ({ algorithm }) =>
  !["persistence", "persistence+own_sigma", "robust_z", "ewma"].includes(algorithm);

/** Days of data that a trained version still lacks, from the words of a promotion or check; null = not named. */
export function daysLacking(why) {
  const found = /needs (\d+) more days?/.exec(why);
  return found && Number(found[1]);
}

const FEATURES = {
  rz: "5 min return",
  r5: "5 min return",
  r15: "15 min return",
  r1h: "1 h return",
  r24h: "24 h return",
  rv1h: "1 h volatility",
  r5_market: "5 min return against the other coins",
  s: "scale",
};

/** What made a slot stand out: `5 min return −10.9 σ, 15 min return −6.7 σ`. */
export function explanation(row) {
  if (!Array.isArray(row.explanation)) return "no explanation: the score has no inputs";
  return row.explanation
    .map(({ feature, sigma }) => `${FEATURES[feature] ?? feature} ${percent(sigma, 1)}\u00a0σ`)
    .join(", ");
}

const SCORES = {
  robust_z: "its own return",
  market: "its return against the market",
  common: "the move of all coins",
  isolation_forest: "the forest",
};

/** Which scores were above their thresholds; null in rows from before there were several. */
export const fired = (row) => row.detectors?.map((name) => SCORES[name] ?? name).join(" and ") || null;

/** Past windows of the coin that are most like a flagged slot: `like 08-30 14:05, 09-02 03:10 UTC`; empty without any. */
export function similar(row) {
  if (!Array.isArray(row.similar_windows)) return "";
  return `like ${row.similar_windows.map(({ window_end }) => minute(window_end).slice(5)).join(", ")} UTC`;
}

export const SCOPES = { market_wide: "market-wide", coin_specific: "this coin" };

/** One card in place of a view that has nothing to show. */
export function emptyCard(store) {
  const why = store.board.provenance.ready ?? "The home holds no prices yet.";
  return h(
    "section",
    { class: "card" },
    h("h1", {}, "No prices yet"),
    h("p", {}, `${why[0].toUpperCase()}${why.slice(1)}${why.endsWith(".") ? "" : "."}`),
    h("p", {}, "Two recorded days in about a minute: ", h("code", {}, "crypto-assets demo")),
    h("p", {}, "Live prices from CoinGecko: ", h("code", {}, "crypto-assets up --source coingecko")),
    h("p", { class: "hint" }, "The page fills by itself as soon as the first price is stored."),
  );
}

/** A value that is missing, outside a table. */
export const absent = (why) => h("span", { class: "missing" }, "– ", h("small", {}, why));

/** A definition list of labels and values. */
export function facts(pairs) {
  return h(
    "dl",
    { class: "facts" },
    pairs.filter(Boolean).map(([label, ...value]) => h("div", {}, h("dt", {}, label), h("dd", {}, value))),
  );
}
