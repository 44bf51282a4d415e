// Gainers, losers and the coins that moved furthest, over 24 h of bars.

import { h } from "../dom.js";
import { fixed, minute } from "../format.js";
import { coinLink, named, pct, provenance, usd } from "../parts.js";
import { num, Table } from "../table.js";

const MOST = 10;

/** Show it; see `app.show`. */
export function show(root, { store, signal }) {
  const tables = {
    gainers: board("Gainers", changeColumns, "No coin rose."),
    losers: board("Losers", changeColumns, "No coin fell."),
    volatile: board("Most volatile", rangeColumns, "No bars of 24 h yet."),
    unknown: board("Change unknown", unknownColumns, ""),
  };
  const source = h("div");
  const asOf = h("p", { class: "hint" });
  const unknown = h("div", {}, tables.unknown.element);
  const draw = () => {
    const rows = store.data.leaderboard.map((row) => named(store, row));
    const known = rows.filter((row) => row.change_24h !== null);
    tables.gainers.update(
      known
        .filter((row) => row.change_24h > 0)
        .sort((a, b) => b.change_24h - a.change_24h)
        .slice(0, MOST),
    );
    tables.losers.update(
      known
        .filter((row) => row.change_24h < 0)
        .sort((a, b) => a.change_24h - b.change_24h)
        .slice(0, MOST),
    );
    tables.volatile.update([...rows].sort((a, b) => range(b) - range(a)).slice(0, MOST));
    const without = rows.filter((row) => row.change_24h === null);
    unknown.hidden = !without.length;
    tables.unknown.update(without);
    const ends = rows.map((row) => row.window_end).sort();
    asOf.textContent = ends.length
      ? `24 h of 5-minute bars that end at ${minute(ends.at(-1))} UTC. Ranked within ${rows.length} coins.`
      : "No bars of 24 h yet.";
    source.replaceChildren(provenance(store, "gold.leaderboard_24h"));
  };
  root.append(
    h("h1", {}, "Leaderboard"),
    asOf,
    h("div", { class: "columns" }, tables.gainers.element, tables.losers.element, tables.volatile.element, unknown),
    source,
  );
  store.on("board", draw, signal);
  draw();
}

const range = (row) => row.high_24h / row.low_24h - 1;
const coin = { id: "coin", label: "Coin", lead: true, cell: coinLink };
const paid = { id: "price", label: "Price, USD", num: true, cell: (row) => usd(row.price_usd) };

const changeColumns = [
  coin,
  paid,
  { id: "before", label: "24 h before, USD", num: true, cell: (row) => usd(row.price_24h_ago_usd) },
  { id: "change", label: "24 h, %", num: true, cell: (row) => pct(100 * row.change_24h) },
];
const rangeColumns = [
  coin,
  { id: "low", label: "Low, USD", num: true, cell: (row) => usd(row.low_24h) },
  { id: "high", label: "High, USD", num: true, cell: (row) => usd(row.high_24h) },
  { id: "range", label: "High over low, %", num: true, cell: (row) => num(fixed(100 * range(row), 2)) },
];
const unknownColumns = [
  coin,
  paid,
  {
    id: "change",
    label: "24 h, %",
    num: true,
    cell: () => ({ reason: "no bar within 10 min of 24 h before the newest one" }),
  },
];

function board(caption, columns, empty) {
  return new Table(columns, { caption, key: (row) => row.coin_id, empty });
}
