// How good the forecasts are: skill, coverage, width and Winkler score, which model makes them and why, and volatility.

import { h, svg } from "../dom.js";
import { count, fixed, minute, share } from "../format.js";
import { coinLink, daysLacking, isTrained, maybe, named, provenance, serving } from "../parts.js";
import { change, missing, num, Table } from "../table.js";
import { section } from "./volatility.js";

const PROMISED = 0.9;
const DAYS = 3;
const PURPOSE = {
  price_5m: "Price in 5 minutes",
  price_1h: "Price in 1 hour",
  volatility_1h: "Volatility of 1 hour",
  volatility_24h: "Volatility of 24 hours",
  anomaly: "Anomaly score",
};
const HORIZONS = { "5m": "5 min", "1h": "1 h" };
const MODES = { live: "live", backfill: "backfilled" };

/** Show it; see `app.show`. */
export async function show(root, { store, signal }) {
  const models = modelTable(store);
  const measures = measureTable();
  const days = dayTable(store);
  const source = h("div");
  const volatility = section(store, signal, method);
  root.append(
    h("h1", {}, "Forecasts"),
    h("h2", {}, "What serves"),
    models.element,
    h("h2", {}, "How good it was"),
    h(
      "p",
      { class: "hint" },
      "Skill is 1 − MSE / MSE of “the price stays”: above 0 is better than that. A 90 % interval is calibrated when it holds 90 % of the outcomes. " +
        "The Winkler score is the interval's width plus 20 times the miss, in % of the price: lower is better. Of the outcomes, 5, 50 and 95 % should lie below the 5 % quantile, the median and the 95 % quantile. " +
        "Only live forecasts, written before their outcome, count as skill.",
    ),
    measures.element,
    h("h2", {}, "By day and coin"),
    days.element,
    source,
    volatility.element,
  );
  const draw = () => {
    models.update([...serving(store).values()].sort((a, b) => (a.model < b.model ? 1 : -1)));
    measures.update(pooled(store.data.accuracy, ["horizon", "method", "mode"]));
    const newest = [...new Set(store.data.accuracy.map((row) => row.day))].sort().slice(-DAYS);
    const recent = store.data.accuracy.filter((row) => newest.includes(row.day));
    days.update(pooled(recent, ["day", "coin_id", "horizon", "mode"]));
    source.replaceChildren(provenance(store, "gold.prediction_accuracy"));
    volatility.draw();
  };
  store.on("board", draw, signal);
  store.on("reset", draw, signal);
  draw();
}

/** A version's name without the day of its training. */
const method = (version) => version.replace(/^\d{4}-\d\d-\d\d-/, "").replaceAll("-", " ");

function modelTable(store) {
  return new Table(
    [
      { id: "model", label: "Model", lead: true, fit: true, cell: (row) => PURPOSE[row.model] ?? row.model },
      { id: "version", label: "Version", fit: true, cell: (row) => row.version },
      { id: "algorithm", label: "Algorithm", cell: (row) => row.algorithm.replaceAll("_", " ").replace("+", " + ") },
      { id: "skill", label: "Point forecast", cell: verdict },
      { id: "since", label: "Serves since, UTC", fit: true, cell: (row) => minute(row.effective_from) },
      { id: "days", label: "Days until a trained one can", num: true, cell: (row) => daysUntil(store, row) },
      {
        id: "why",
        label: "Why this one",
        cell: (row) => `${row.why}${row.provisional ? " (provisional: calibrated on fewer than 28 days)" : ""}`,
      },
    ],
    {
      caption: "The version of each model that scores now",
      key: (row) => row.model,
      empty: "No version was ever recorded.",
    },
  );
}

/** Whether a price model forecasts better than “the price stays”, in the words of its promotion. */
function verdict(row) {
  if (!row.model.startsWith("price")) return missing("this model forecasts no price");
  if (row.why.startsWith("no skill")) return "no skill";
  return row.why.startsWith("promoted: skill") ? "skill" : "not evaluated";
}

/** What the check `enough_data` of a model's asset last found; empty when it is green or not reported. */
function finding(store, model) {
  const asset = store.data.state.report?.assets.find((one) => one.asset === `ml/${model.split("_")[0]}_model`);
  const place = asset?.checks_red.findIndex((label) => label.startsWith("enough_data")) ?? -1;
  return place < 0 ? "" : (asset.findings?.[place] ?? "");
}

/** Days of data that a trained model still lacks, where a plain rule serves. */
function daysUntil(store, row) {
  if (isTrained(row)) return "serves";
  if (row.algorithm === "ewma" && row.version !== "v0") return missing("nothing that was trained is surely better");
  const days = daysLacking(row.why) ?? daysLacking(finding(store, row.model));
  return days === null
    ? missing("no training was recorded yet; check enough_data of the model's asset counts the days")
    : num(String(days));
}

const MEANS = ["mae_pct", "coverage_90", "below_lower", "below_median", "below_upper", "width_pct", "winkler_pct"];

/** Rows of accuracy put together by some columns, and `method`, newest first: means over their forecasts. */
function pooled(rows, columns) {
  const groups = new Map();
  for (const one of rows) {
    const row = { ...one, method: method(one.model_version) };
    const key = columns.map((name) => row[name]).join(" ");
    const sum = groups.get(key) ?? {
      ...Object.fromEntries(columns.map((name) => [name, row[name]])),
      key,
      forecasts: 0,
      versions: new Set(),
      mse: 0,
      naive: 0,
      measured: 0,
      of: Object.fromEntries(MEANS.map((name) => [name, [0, 0]])),
    };
    groups.set(key, sum);
    sum.forecasts += row.forecasts;
    sum.versions.add(row.model_version);
    for (const name of MEANS) {
      if (row[name] === null || row[name] === undefined) continue;
      sum.of[name][0] += row.forecasts * row[name];
      sum.of[name][1] += row.forecasts;
    }
    if (row.skill === null || row.rmse_pct === null) continue;
    sum.measured += row.forecasts;
    sum.mse += row.forecasts * row.rmse_pct ** 2;
    // Of persistence: skill = 1 - MSE / MSE of persistence.
    sum.naive += (row.forecasts * row.rmse_pct ** 2) / (1 - row.skill || Number.EPSILON);
  }
  const mean = ([total, count]) => (count ? total / count : null);
  return [...groups.values()]
    .map((sum) => ({
      ...sum,
      ...Object.fromEntries(MEANS.map((name) => [name, mean(sum.of[name])])),
      skill: sum.naive ? 1 - sum.mse / sum.naive : null,
      rmse_pct: sum.measured ? Math.sqrt(sum.mse / sum.measured) : null,
    }))
    .sort((a, b) => (a.key < b.key ? 1 : -1));
}

const NONE = "no outcome is known yet";

/** Why a figure of the interval is missing. */
const earlier = (row) => (row.coverage_90 === null ? NONE : "scored before this was measured");

const share100 = (value) => num(fixed(100 * value, 1));
const percent = (value) => num(fixed(value, 2));

/** Columns that both tables have. */
const WRITTEN = { id: "mode", label: "Written", cell: (row) => MODES[row.mode] ?? row.mode };
const FORECASTS = { id: "n", label: "Forecasts", num: true, cell: (row) => num(count(row.forecasts)) };
const SKILL = { id: "skill", label: "Skill", num: true, cell: (row) => skill(row.skill, NONE) };
const COVERAGE = {
  id: "coverage",
  label: "Coverage, %",
  num: true,
  cell: (row) => maybe(row.coverage_90, share100, NONE),
};
const INTERVAL = [
  {
    id: "below",
    label: "Below quantiles, %",
    title: "Outcomes below the 5 % quantile, the median and the 95 % quantile",
    num: true,
    cell: (row) => curve([row.below_lower, row.below_median, row.below_upper], earlier(row)),
  },
  { id: "width", label: "Width, %", num: true, cell: (row) => maybe(row.width_pct, percent, earlier(row)) },
  { id: "winkler", label: "Winkler, %", num: true, cell: (row) => maybe(row.winkler_pct, percent, earlier(row)) },
];

function measureTable() {
  return new Table(
    [
      { id: "horizon", label: "Horizon", lead: true, fit: true, cell: (row) => HORIZONS[row.horizon] ?? row.horizon },
      { id: "method", label: "Method", cell: (row) => row.method },
      { id: "versions", label: "Versions", num: true, cell: (row) => num(count(row.versions.size)) },
      WRITTEN,
      FORECASTS,
      SKILL,
      { id: "rmse", label: "RMSE, %", num: true, cell: (row) => maybe(row.rmse_pct, percent, NONE) },
      COVERAGE,
      {
        id: "calibration",
        label: "Calibration",
        cell: (row) => {
          const [held, judged] = row.of.coverage_90;
          return { sig: `${held} ${judged}`, node: () => calibration(held, judged) };
        },
      },
      ...INTERVAL,
    ],
    {
      caption: "Over all coins, the newest 14 days; a version is trained every day",
      key: (row) => row.key,
      empty: "No day of forecasts was scored yet.",
    },
  );
}

function skill(value, none) {
  return value === null ? missing(none) : change(Number(value.toFixed(3)), fixed(value, 3));
}

/** The calibration curve: shares of outcomes below each quantile of the forecasts. */
function curve(shares, none) {
  if (shares.every((one) => one === null || one === undefined)) return missing(none);
  return num(shares.map((one) => (one === null || one === undefined ? "–" : fixed(100 * one, 1))).join(" · "));
}

const [WIDE, LOW, HIGH] = [150, 0.5, 1];

/** Measured coverage with its 95 % confidence interval (Wilson) against the promised 90 %, on an axis from 50 to 100 %. */
function calibration(held, of) {
  if (!of) return h("span", { class: "missing", title: "no outcome is known yet" }, "–");
  const [p, z] = [held / of, 1.96];
  const middle = (p + z ** 2 / (2 * of)) / (1 + z ** 2 / of);
  const half = (z * Math.sqrt((p * (1 - p)) / of + z ** 2 / (4 * of ** 2))) / (1 + z ** 2 / of);
  const x = (value) => (((Math.min(HIGH, Math.max(LOW, value)) - LOW) / (HIGH - LOW)) * (WIDE - 8) + 4).toFixed(1);
  const verdict = middle + half < PROMISED ? "too narrow" : middle - half > PROMISED ? "too wide" : "calibrated";
  return h(
    "span",
    { class: "calibration" },
    svg(
      "svg",
      {
        viewBox: `0 0 ${WIDE} 16`,
        width: WIDE,
        height: 16,
        role: "img",
        "aria-label": `${share(p)} of the outcomes are within the interval, 90 % is promised`,
      },
      svg("path", { class: "axis", d: `M4 8H${WIDE - 4}` }),
      svg("path", { class: "goal", d: `M${x(PROMISED)} 1V15` }),
      svg("path", { class: "spread", d: `M${x(middle - half)} 8H${x(middle + half)}` }),
      svg("circle", { cx: x(p), cy: 8, r: 3 }),
    ),
    verdict,
  );
}

function dayTable(store) {
  return new Table(
    [
      { id: "day", label: "Day (UTC)", lead: true, fit: true, cell: (row) => row.day },
      { id: "coin", label: "Coin", cell: (row) => coinLink(named(store, row)) },
      { id: "horizon", label: "Horizon", fit: true, cell: (row) => HORIZONS[row.horizon] ?? row.horizon },
      WRITTEN,
      FORECASTS,
      SKILL,
      { id: "mae", label: "MAE, %", num: true, cell: (row) => maybe(row.mae_pct, percent, NONE) },
      COVERAGE,
      ...INTERVAL,
    ],
    {
      caption: `The newest ${DAYS} days, newest first; by version, and older ones: v1/accuracy`,
      key: (row) => row.key,
      empty: "No day of forecasts was scored yet.",
    },
  );
}
