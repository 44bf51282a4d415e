// The table of flagged slots, on the board, on a coin's page and among the anomalies.

import { minute, fixed } from "./format.js";
import { coinLink, explanation, maybe, named, SCOPES, usd } from "./parts.js";
import { num, Table } from "./table.js";

/** Flagged slots, newest first; `coins` = with a column that names the coin. */
export function flagTable(store, caption, { coins = true, empty = "None in this span." } = {}) {
  return new Table(
    [
      { id: "at", label: "Slot ends, UTC", lead: true, fit: true, cell: (row) => minute(row.window_end) },
      coins && { id: "coin", label: "Coin", cell: (row) => coinLink(named(store, row)) },
      {
        id: "price",
        label: "Price, USD",
        num: true,
        cell: (row) => maybe(row.price, usd, "no fresh price in the slot"),
      },
      {
        id: "score",
        label: "Score",
        num: true,
        title: "In the coin's own σ, or of the forest",
        cell: (row) => num(fixed(row.anomaly_score, 1)),
      },
      { id: "threshold", label: "Threshold", num: true, cell: (row) => num(fixed(row.threshold, 1)) },
      {
        id: "scope",
        label: "Scope",
        fit: true,
        cell: (row) =>
          maybe(row.scope, (scope) => SCOPES[scope] ?? scope, "fewer than two other coins to compare with"),
      },
      {
        id: "suspicion",
        label: "Data",
        title: "Whether the data itself is suspicious",
        cell: (row) => row.suspicion?.replaceAll("_", " ") ?? "sound",
      },
      { id: "why", label: "What stood out", cell: explanation },
    ].filter(Boolean),
    { caption, key: (row) => `${row.coin_id} ${row.window_end}`, empty },
  );
}

/** Rows with a flag put in, in the order of time. */
export function withFlag(rows, flag) {
  const others = rows.filter((row) => row.coin_id !== flag.coin_id || row.window_end !== flag.window_end);
  return [...others, flag].sort((a, b) => (a.window_end < b.window_end ? -1 : 1));
}

/** Newest first. */
export const newestFirst = (rows) => [...rows].reverse();
