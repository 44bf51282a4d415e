// The part of the forecasts view on volatility: what is expected of the next hour and day, and how good that was.

import { h } from "../dom.js";
import { count, fixed, minute } from "../format.js";
import { coinLink, maybe, named, provenance } from "../parts.js";
import { ask } from "../store.js";
import { missing, num, Table } from "../table.js";

const HORIZONS = { "1h": "1 h", "24h": "24 h" };
const MODES = { live: "live", backfill: "backfilled" };
const LOSSES = ["qlike", "qlike_ewma", "qlike_last_value"];
const SCORED = "v1/volatility-accuracy?limit=2000";
const NONE = "no outcome is known yet";

/** The section's element, and what draws it from the store. */
export function section(store, signal, method) {
  const ahead = aheadTable(store);
  const measures = measureTable();
  const source = h("div");
  const element = h(
    "section",
    {},
    h("h2", {}, "Volatility ahead"),
    h(
      "p",
      { class: "hint" },
      "Volatility is the root of the sum of squared 5-minute log returns over the horizon, in %: two thirds of moves are smaller, were returns Gaussian. " +
        "Average: exponentially weighted, over 7 days. Last: the hour or day before repeats itself. " +
        "QLIKE is the loss of a forecast of variance: 0 is perfect, lower is better; below 1, the ratio says that the model beats both baselines.",
    ),
    ahead.element,
    h("h3", {}, "How good that was"),
    measures.element,
    source,
  );
  const draw = async () => {
    const rows = store.data.volatility;
    ahead.update(pairs(rows));
    source.replaceChildren(provenance(store, "gold.volatility_forecasts"));
    if (!rows.length) return measures.update([]);
    const scored = await ask(SCORED).catch(() => null);
    if (scored && !signal.aborted) measures.update(pooled(scored.data, method));
  };
  return { element, draw };
}

/** One row per coin of its newest forecasts by horizon. */
function pairs(rows) {
  const coins = new Map();
  for (const row of rows)
    coins.set(row.coin_id, { ...coins.get(row.coin_id), coin_id: row.coin_id, [row.horizon]: row });
  return [...coins.values()];
}

function aheadTable(store) {
  const columns = Object.entries(HORIZONS).flatMap(([horizon, text]) => {
    const of =
      (name, decimals = 2) =>
      (row) =>
        row[horizon]
          ? maybe(
              row[horizon][name],
              (value) => num(fixed(value, decimals)),
              "a price of the horizon before is unknown",
            )
          : missing(`no forecast ${text} ahead yet`);
    return [
      { id: `v${horizon}`, label: `Next ${text}, %`, num: true, cell: of("volatility_pct") },
      { id: `a${horizon}`, label: "Average, %", num: true, cell: of("ewma_pct") },
      { id: `l${horizon}`, label: `Last ${text}, %`, num: true, cell: of("last_value_pct") },
    ];
  });
  const newest = (row) => row["1h"] ?? row["24h"];
  return new Table(
    [
      { id: "coin", label: "Coin", lead: true, cell: (row) => coinLink(named(store, row)) },
      ...columns,
      { id: "at", label: "From, UTC", fit: true, cell: (row) => minute(newest(row).window_end) },
    ],
    {
      caption: "The newest forecast of each coin; 24 h ahead from each full hour",
      key: (row) => row.coin_id,
      empty: "Nothing was forecast yet: half a day of returns is needed.",
    },
  );
}

/** Rows of accuracy by horizon, method and mode: means over their forecasts. */
function pooled(rows, method) {
  const groups = new Map();
  for (const row of rows) {
    const key = [row.horizon, method(row.model_version), row.mode].join(" ");
    const sum = groups.get(key) ?? { ...row, key, method: method(row.model_version), forecasts: 0, of: {} };
    groups.set(key, sum);
    sum.forecasts += row.forecasts;
    for (const name of LOSSES) {
      if (row[name] === null) continue;
      const [total, n] = sum.of[name] ?? [0, 0];
      sum.of[name] = [total + row.forecasts * row[name], n + row.forecasts];
    }
  }
  return [...groups.values()]
    .map((sum) => ({ ...sum, loss: Object.fromEntries(LOSSES.map((name) => [name, mean(sum.of[name])])) }))
    .sort((a, b) => (a.key < b.key ? -1 : 1));
}

const mean = (sum) => (sum ? sum[0] / sum[1] : null);

/** Loss of the model over that of the better baseline; null without outcomes. */
function ratio({ loss }) {
  const best = Math.min(...[loss.qlike_ewma, loss.qlike_last_value].filter((value) => value !== null));
  return loss.qlike === null || !(best > 0) || !Number.isFinite(best) ? null : loss.qlike / best;
}

function measureTable() {
  const loss = (name) => (row) => maybe(row.loss[name], (value) => num(fixed(value, 3)), NONE);
  return new Table(
    [
      { id: "horizon", label: "Horizon", lead: true, fit: true, cell: (row) => HORIZONS[row.horizon] ?? row.horizon },
      { id: "method", label: "Method", cell: (row) => row.method },
      { id: "mode", label: "Written", cell: (row) => MODES[row.mode] ?? row.mode },
      { id: "n", label: "Forecasts", num: true, cell: (row) => num(count(row.forecasts)) },
      { id: "qlike", label: "QLIKE", num: true, cell: loss("qlike") },
      { id: "ewma", label: "Average's", num: true, cell: loss("qlike_ewma") },
      { id: "last", label: "Last value's", num: true, cell: loss("qlike_last_value") },
      {
        id: "ratio",
        label: "Ratio to the better",
        num: true,
        cell: (row) => maybe(ratio(row), (value) => num(fixed(value, 2)), NONE),
      },
    ],
    {
      caption: "Over all coins, the newest days; by day, coin and version: v1/volatility-accuracy",
      key: (row) => row.key,
      empty: "No day of volatility forecasts was scored yet.",
    },
  );
}
