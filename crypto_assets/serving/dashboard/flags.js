// The table of flagged slots, on the board, on a coin's page and among the anomalies.

import { count, fixed, minute } from "./format.js";
import { coinLink, explanation, fired, maybe, named, SCOPES, similar, usd } from "./parts.js";
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
        title: "Times the coin's threshold; of several scores the highest",
        cell: (row) => num(fixed(row.anomaly_score / row.threshold, 2), "×"),
      },
      {
        id: "own",
        label: "Own σ",
        num: true,
        title: "Size of the 5 min return in the coin's own σ",
        cell: (row) => maybe(row.size_sigma, (size) => num(fixed(size, 1)), "its scale is unknown"),
      },
      {
        id: "market",
        label: "Market σ",
        num: true,
        title: "Size of the 5 min return against the other coins, in σ of these returns",
        cell: (row) =>
          maybe(row.size_market_sigma, (size) => num(fixed(size, 1)), "fewer than two other coins to compare with"),
      },
      {
        id: "fired",
        label: "Fired",
        title: "Which score is above its threshold",
        cell: (row) => maybe(fired(row), (names) => names, "scored before there were several scores"),
      },
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
      {
        id: "why",
        label: "What stood out",
        title: "The largest inputs, and the coin's past windows that are most like it",
        cell: (row) => [explanation(row), similar(row)].filter(Boolean).join("; "),
      },
    ].filter(Boolean),
    { caption, key: (row) => `${row.coin_id} ${row.window_end}`, empty },
  );
}

/** Rows with a flag put in, in the order of time. */
export function withFlag(rows, flag) {
  const others = rows.filter((row) => row.coin_id !== flag.coin_id || row.window_end !== flag.window_end);
  return [...others, flag].sort((a, b) => (a.window_end < b.window_end ? -1 : 1));
}

/** Spans in which a coin's quote was suspected to be frozen, newest first: `{coin_id, symbol, from, to, slots, price}`. */
export function frozenSpans(rows) {
  const spans = [];
  for (const row of [...rows].sort((a, b) => (a.window_end < b.window_end ? -1 : 1))) {
    const before = spans.findLast((span) => span.coin_id === row.coin_id);
    if (before?.to === row.window_start) Object.assign(before, { to: row.window_end, slots: before.slots + 1 });
    else spans.push({ ...row, from: row.window_start, to: row.window_end, slots: 1 });
  }
  return spans.reverse();
}

/** Spans of frozen quotes. */
export function frozenTable(store) {
  return new Table(
    [
      { id: "from", label: "Suspected from, UTC", lead: true, fit: true, cell: (row) => minute(row.from) },
      { id: "to", label: "To, UTC", fit: true, cell: (row) => minute(row.to) },
      { id: "coin", label: "Coin", cell: (row) => coinLink(named(store, row)) },
      { id: "price", label: "Price, USD", num: true, cell: (row) => maybe(row.price, usd, "no price") },
      { id: "slots", label: "Slots", num: true, cell: (row) => num(count(row.slots)) },
    ],
    {
      caption: "The same price for longer than the coin's last 28 days had it, though its quotes are fresh",
      key: (row) => `${row.coin_id} ${row.from}`,
      empty: "No quote is suspected to be frozen.",
    },
  );
}

/** Newest first. */
export const newestFirst = (rows) => [...rows].reverse();
