// How good the forecasts are: skill, coverage, width and Winkler score, and which model makes them and why.

import { h, svg } from "../dom.js";
import { count, fixed, minute, share } from "../format.js";
import { coinLink, daysLacking, isTrained, maybe, named, provenance, serving } from "../parts.js";
import { ask } from "../store.js";
import { change, missing, num, Table } from "../table.js";

const PROMISED = 0.9;
const DAYS = 3;
const PURPOSE = { price_5m: "Price in 5 minutes", price_1h: "Price in 1 hour", anomaly: "Anomaly score" };
const HORIZONS = { "5m": "5 min", "1h": "1 h" };
const MODES = { live: "live", backfill: "backfilled" };

/** Show it; see `app.show`. */
export async function show(root, { store, signal }) {
  const models = modelTable(store);
  const measures = measureTable();
  const days = dayTable(store);
  const source = h("div");
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
  );
  let intervals = null;
  const draw = () => {
    models.update([...serving(store).values()].sort((a, b) => (a.model < b.model ? 1 : -1)));
    measures.update(pooled(store.data.accuracy, intervals));
    const newest = [...new Set(store.data.accuracy.map((row) => row.day))].sort().slice(-DAYS);
    const recent = store.data.accuracy.filter((row) => newest.includes(row.day));
    days.update(recent.sort((a, b) => order(b).localeCompare(order(a))));
    source.replaceChildren(provenance(store, "gold.prediction_accuracy"));
  };
  const load = async () => {
    try {
      intervals = (await ask("v1/queries/interval_coverage")).data;
    } catch {
      intervals = null;
    }
    if (!signal.aborted) draw();
  };
  store.on("board", draw, signal);
  store.on("reset", load, signal);
  draw();
  await load();
}

const order = (row) => [row.day, row.coin_id, row.horizon, row.model_version, row.mode].join(" ");

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
  const days = daysLacking(row.why) ?? daysLacking(finding(store, row.model));
  return days === null
    ? missing("no training was recorded yet; check enough_data of the model's asset counts the days")
    : num(String(days));
}

/** Measures per horizon, version and mode, over all coins and days. */
function pooled(rows, intervals) {
  const groups = new Map();
  for (const row of rows) {
    const key = [row.horizon, row.model_version, row.mode].join(" ");
    const sum = groups.get(key) ?? {
      key,
      horizon: row.horizon,
      version: row.model_version,
      mode: row.mode,
      forecasts: 0,
      measured: 0,
      mse: 0,
      naive: 0,
      judged: 0,
      held: 0,
      below: { below_lower: [0, 0], below_median: [0, 0], below_upper: [0, 0] },
    };
    groups.set(key, sum);
    sum.forecasts += row.forecasts;
    if (row.coverage_90 !== null) {
      sum.judged += row.forecasts;
      sum.held += row.forecasts * row.coverage_90;
    }
    for (const [name, of] of Object.entries(sum.below)) {
      if (row[name] === null || row[name] === undefined) continue;
      of[0] += row.forecasts * row[name];
      of[1] += row.forecasts;
    }
    if (row.skill === null || row.rmse_pct === null) continue;
    sum.measured += row.forecasts;
    sum.mse += row.forecasts * row.rmse_pct ** 2;
    // Of persistence: skill = 1 - MSE / MSE of persistence.
    sum.naive += (row.forecasts * row.rmse_pct ** 2) / (1 - row.skill || Number.EPSILON);
  }
  const wide = (sum) =>
    intervals?.find((row) => row.horizon === sum.horizon && row.model_version === sum.version && row.mode === sum.mode);
  return [...groups.values()]
    .map((sum) => ({ ...sum, interval: wide(sum) ?? null, queried: intervals !== null }))
    .sort((a, b) => (a.key < b.key ? 1 : -1));
}

function measureTable() {
  const none = "no outcome is known yet";
  const width = (row) =>
    row.queried ? "not among the newest 7 days of forecasts" : "the query interval_coverage did not answer";
  return new Table(
    [
      { id: "horizon", label: "Horizon", lead: true, cell: (row) => HORIZONS[row.horizon] ?? row.horizon },
      { id: "version", label: "Version", cell: (row) => row.version },
      { id: "mode", label: "Written", cell: (row) => MODES[row.mode] ?? row.mode },
      { id: "n", label: "Forecasts", num: true, cell: (row) => num(count(row.forecasts)) },
      {
        id: "skill",
        label: "Skill",
        num: true,
        cell: (row) => skill(row.naive ? 1 - row.mse / row.naive : null, none),
      },
      {
        id: "rmse",
        label: "RMSE, %",
        num: true,
        cell: (row) => (row.measured ? num(fixed(Math.sqrt(row.mse / row.measured), 2)) : missing(none)),
      },
      {
        id: "coverage",
        label: "Coverage, %",
        num: true,
        cell: (row) => (row.judged ? num(fixed((100 * row.held) / row.judged, 1)) : missing(none)),
      },
      {
        id: "calibration",
        label: "Calibration",
        cell: (row) => ({ sig: `${row.held} ${row.judged}`, node: () => calibration(row.held, row.judged) }),
      },
      {
        id: "below",
        label: "Below 5, 50, 95 % quantile, %",
        num: true,
        cell: (row) => curve(Object.values(row.below).map(([below, of]) => (of ? below / of : null)), none),
      },
      {
        id: "width",
        label: "Width, %",
        num: true,
        cell: (row) => maybe(row.interval?.width_pct, (value) => num(fixed(value, 2)), width(row)),
      },
      {
        id: "winkler",
        label: "Winkler, %",
        num: true,
        cell: (row) => maybe(row.interval?.winkler_pct, (value) => num(fixed(value, 2)), width(row)),
      },
    ],
    {
      caption: "Over all coins, the newest 14 days",
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

/** Why a figure of the interval is missing. */
const earlier = (row, none) => (row.coverage_90 === null ? none : "the day was scored before this was measured");

function dayTable(store) {
  const none = "no outcome is known";
  return new Table(
    [
      { id: "day", label: "Day (UTC)", lead: true, fit: true, cell: (row) => row.day },
      { id: "coin", label: "Coin", cell: (row) => coinLink(named(store, row)) },
      { id: "horizon", label: "Horizon", cell: (row) => HORIZONS[row.horizon] ?? row.horizon },
      { id: "version", label: "Version", cell: (row) => row.model_version },
      { id: "mode", label: "Written", cell: (row) => MODES[row.mode] ?? row.mode },
      { id: "n", label: "Forecasts", num: true, cell: (row) => num(count(row.forecasts)) },
      { id: "without", label: "Without outcome", num: true, cell: (row) => num(count(row.without_outcome)) },
      {
        id: "mae",
        label: "MAE, %",
        num: true,
        cell: (row) => maybe(row.mae_pct, (value) => num(fixed(value, 2)), none),
      },
      { id: "skill", label: "Skill", num: true, cell: (row) => skill(row.skill, none) },
      {
        id: "hit",
        label: "Direction hit, %",
        num: true,
        cell: (row) =>
          maybe(
            row.direction_hit,
            (value) => num(fixed(100 * value, 1)),
            "the model forecasts no direction: every return is 0",
          ),
      },
      {
        id: "coverage",
        label: "Coverage, %",
        num: true,
        cell: (row) => maybe(row.coverage_90, (value) => num(fixed(100 * value, 1)), none),
      },
      {
        id: "below",
        label: "Below 5, 50, 95 % quantile, %",
        num: true,
        cell: (row) => curve([row.below_lower, row.below_median, row.below_upper], earlier(row, none)),
      },
      {
        id: "width",
        label: "Width, %",
        num: true,
        cell: (row) => maybe(row.width_pct, (value) => num(fixed(value, 2)), earlier(row, none)),
      },
      {
        id: "winkler",
        label: "Winkler, %",
        num: true,
        cell: (row) => maybe(row.winkler_pct, (value) => num(fixed(value, 2)), earlier(row, none)),
      },
    ],
    {
      caption: `The newest ${DAYS} days, newest first; older ones by v1/accuracy`,
      key: order,
      empty: "No day of forecasts was scored yet.",
    },
  );
}
