// Flags: which slots stood out and why, and whether there are more of them than the budget allows.

import { h } from "../dom.js";
import { flagTable, frozenSpans, frozenTable, newestFirst, withFlag } from "../flags.js";
import { count, day, fixed, minute, ms } from "../format.js";
import { coinLink, provenance, SCOPES } from "../parts.js";
import { ask } from "../store.js";
import { missing, num, Table } from "../table.js";

const DAY_MS = 86_400_000;
const SPANS = { 1: "1 day", 7: "7 days", 30: "30 days" };
const MOST = 1_000;
const EVER = "2009-01-03T00:00:00Z";

/** Show it; see `app.show`. */
export async function show(root, { store, params, signal }) {
  const chosen = {
    coin: params.get("coin") ?? "",
    scope: params.get("scope") ?? "",
    days: params.get("days") in SPANS ? params.get("days") : "7",
  };
  const list = flagTable(store, "Flagged 5-minute slots, newest first", { empty: "No flags match." });
  const frozen = frozenTable(store);
  const days = h("div");
  const said = h("p", { class: "hint", role: "status" });
  const source = h("div");
  root.append(
    h("h1", {}, "Anomalies"),
    filters(store, chosen),
    said,
    list.element,
    h("h2", {}, "Flags per coin and day"),
    days,
    h("h2", {}, "Frozen quotes"),
    frozen.element,
    source,
  );

  let [rows, first, stuck] = [[], null, []];
  const draw = () => {
    const newest = store.about("gold.anomalies")?.newest_event_at;
    const start = newest ? ms(newest) - Number(chosen.days) * DAY_MS : -Infinity;
    const within = rows.filter((row) => ms(row.window_end) > start);
    const shown = within.filter(
      (row) => (!chosen.coin || row.coin_id === chosen.coin) && (!chosen.scope || row.scope === chosen.scope),
    );
    list.update(newestFirst(shown));
    const suspected = stuck.filter((row) => ms(row.window_end) > start && (!chosen.coin || row.coin_id === chosen.coin));
    frozen.update(frozenSpans(suspected));
    said.textContent = `${count(shown.length)} of ${count(within.length)} flags in the ${SPANS[chosen.days]} to ${newest ? `${minute(newest)} UTC` : "now"}.`;
    days.replaceChildren(perDay(store, within, newest, first, Number(chosen.days)));
    source.replaceChildren(provenance(store, "gold.anomalies"));
  };
  const load = async () => {
    try {
      const [flagged, oldest, same] = await Promise.all([
        ask(`v1/anomalies?flagged=true&limit=${MOST}`),
        ask(`v1/anomalies?from=${EVER}&limit=1`),
        ask(`v1/anomalies?suspicion=frozen&limit=${MOST}`),
      ]);
      [rows, first, stuck] = [flagged.data, oldest.data[0]?.window_start ?? null, same.data];
    } catch (error) {
      if (error.status !== 404) throw error; // no slot was scored yet
    }
    if (!signal.aborted) draw();
  };
  store.on(
    "anomaly",
    ({ row }) => {
      rows = withFlag(rows, row);
      draw();
    },
    signal,
  );
  store.on("reset", load, signal);
  await load();
}

function filters(store, chosen) {
  const choose = (name) => (event) => {
    const query = new URLSearchParams({ ...chosen, [name]: event.target.value });
    location.hash = `#/anomalies?${query}`;
  };
  const select = (name, label, options) =>
    h(
      "label",
      {},
      h("span", {}, label),
      h(
        "select",
        { id: `filter-${name}`, onchange: choose(name) },
        options.map(([value, text]) => h("option", { value, selected: value === chosen[name] }, text)),
      ),
    );
  const coins = store.data.prices.map((row) => [row.coin_id, row.name ?? row.coin_id]);
  return h(
    "div",
    { class: "filters", role: "group", "aria-label": "Filter" },
    select("coin", "Coin", [["", "All coins"], ...coins]),
    select("scope", "Scope", [["", "All scopes"], ...Object.entries(SCOPES)]),
    select("days", "Span", Object.entries(SPANS)),
  );
}

/** Flags of every coin by day, those over the budget marked. */
function perDay(store, rows, newest, first, span) {
  if (!newest) return h("p", { class: "hint" }, "No slot was scored yet.");
  const budget = store.board.provenance.anomaly_budget ?? null;
  const last = Math.floor((ms(newest) - 1) / DAY_MS);
  const shown = Array.from({ length: Math.min(span, 7) }, (_, i) => day((last - i) * DAY_MS)).reverse();
  const flags = (coin, date) =>
    rows.filter((row) => row.coin_id === coin && day(ms(row.window_end) - 1) === date).length;
  const cell = (coin, date) => {
    if (first && date < day(first)) return missing(`the first slot was scored on ${day(first)}`);
    const found = flags(coin, date);
    return budget !== null && found > budget
      ? { text: count(found), way: "over", mark: "▲", said: "over the budget:" }
      : num(count(found));
  };
  const table = new Table(
    [
      { id: "coin", label: "Coin", lead: true, cell: coinLink },
      ...shown.map((date) => ({
        id: date,
        label: date.slice(5),
        num: true,
        title: date,
        cell: (row) => cell(row.coin_id, date),
      })),
      {
        id: "sum",
        label: "Sum",
        num: true,
        cell: (row) => num(count(shown.reduce((sum, date) => sum + flags(row.coin_id, date), 0))),
      },
    ],
    {
      caption:
        budget === null
          ? "UTC days"
          : `UTC days; the budget is ${fixed(budget, budget % 1 ? 1 : 0)} a coin and day (CRYPTO_ASSETS_ANOMALY_BUDGET), ▲ marks days over it`,
      key: (row) => row.coin_id,
    },
  );
  table.update(store.data.prices);
  return table.element;
}
