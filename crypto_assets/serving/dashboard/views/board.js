// The board: every coin with its price, changes, volume, capitalisation, age and line of a day; and what else matters.

import { h } from "../dom.js";
import { flagTable, newestFirst } from "../flags.js";
import { count, duration, minute, ms } from "../format.js";
import {
  absent,
  coinLink,
  dayChange,
  daysLacking,
  facts,
  firing,
  isTrained,
  large,
  maybe,
  notReported,
  pct,
  provenance,
  serving,
  sparkLabel,
  sparkline,
  usd,
} from "../parts.js";
import { Table } from "../table.js";

const STEP_MS = 5 * 60_000;
const DAY_MS = 86_400_000;
const FLAGS = 5;

/** Show it; see `app.show`. */
export function show(root, { store, signal }) {
  const table = priceTable(store);
  const flags = flagTable(store, "Newest flags", { empty: "No slot was flagged yet." });
  const [summary, source] = [h("div", { class: "summary" }), h("div")];
  const drawPrices = () => table.update(byCap(store.data.prices));
  const drawRest = () => {
    summary.replaceChildren(glance(store));
    flags.update(newestFirst(store.data.flags).slice(0, FLAGS));
  };
  const drawAll = () => {
    drawPrices();
    drawRest();
    source.replaceChildren(provenance(store, "gold.latest_prices"));
  };
  root.append(h("h1", { class: "sr" }, "Board"), table.element, source, summary, flags.element);
  for (const name of ["price", "bar"]) store.on(name, drawPrices, signal);
  for (const name of ["anomaly", "alert"]) store.on(name, drawRest, signal);
  store.on("board", drawAll, signal);
  const ticking = setInterval(drawPrices, 1_000); // ages
  signal.addEventListener("abort", () => clearInterval(ticking));
  drawAll();
}

function priceTable(store) {
  const age = (row) => Math.max(0, (store.now() - ms(row.last_updated_at)) / 1000);
  const points = (row) => store.data.sparklines[row.coin_id] ?? [];
  const day = (row) => dayChange(row, store.data.leaderboard);
  return new Table(
    [
      { id: "coin", label: "Coin", lead: true, cell: coinLink, sort: (row) => row.name ?? row.coin_id },
      { id: "price", label: "Price, USD", num: true, cell: (row) => usd(row.price_usd), sort: (row) => row.price_usd },
      {
        id: "h1",
        label: "1 h, %",
        num: true,
        cell: (row) => maybe(row.change_1h_pct, pct, notReported(row)),
        sort: (row) => row.change_1h_pct,
      },
      { id: "h24", label: "24 h, %", num: true, cell: day, sort: (row) => day(row).value },
      { id: "line", label: "24 h", cell: (row) => spark(points(row)) },
      {
        id: "volume",
        label: "Volume 24 h, USD",
        num: true,
        cell: (row) => maybe(row.volume_24h_usd, large, notReported(row)),
        sort: (row) => row.volume_24h_usd,
      },
      {
        id: "cap",
        label: "Market cap, USD",
        num: true,
        cell: (row) => maybe(row.market_cap_usd, large, notReported(row)),
        sort: (row) => row.market_cap_usd,
      },
      {
        id: "age",
        label: "Age",
        num: true,
        title: "Time since the quote's own timestamp",
        cell: (row) => duration(age(row)),
        sort: age,
      },
    ],
    { caption: "Newest price of every coin", key: (row) => row.coin_id, name: "board" },
  );
}

function spark(points) {
  return {
    sig: JSON.stringify([points[0], points.at(-1)]),
    node: () => sparkline(points, STEP_MS, sparkLabel),
  };
}

/** Largest first; where no capitalisation is known, the dearest. */
function byCap(rows) {
  return [...rows].sort((a, b) => (b.market_cap_usd ?? 0) - (a.market_cap_usd ?? 0) || b.price_usd - a.price_usd);
}

/** What the other views say, in a line. */
function glance(store) {
  const { flags, alerts, state } = store.data;
  const newest = store.about("gold.anomalies")?.newest_event_at;
  const recent = newest ? flags.filter((row) => ms(row.window_end) > ms(newest) - DAY_MS).length : null;
  const model = serving(store).get("price_1h");
  const to = (view, text) => h("a", { href: `#/${view}` }, text);
  const open = firing(alerts).length;
  const known = state.report && !state.state.startsWith("state unknown") ? state.state : null;
  return facts([
    ["Flags in 24 h", recent === null ? absent("no slot was scored yet") : to("anomalies", count(recent))],
    ["Alerts that fire", to("pipeline", open ? count(open) : "none")],
    [
      "Pipeline",
      known
        ? to("pipeline", known)
        : h(
            "span",
            {},
            to("pipeline", "unknown"),
            h("small", {}, state.report ? ` since ${minute(state.written_at)} UTC` : " no report"),
          ),
    ],
    [
      "Forecast model, 1 h",
      model
        ? h("span", {}, to("forecasts", model.algorithm.replaceAll("_", " ")), h("small", {}, trained(model)))
        : absent("none recorded yet"),
    ],
  ]);
}

/** When a trained model can take over. */
function trained(model) {
  const days = daysLacking(model.why);
  return isTrained(model) || days === null ? "" : ` a trained one in ${count(days)} days`;
}
