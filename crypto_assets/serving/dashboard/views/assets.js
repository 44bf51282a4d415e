// Every asset with its table, checks and last run, as the pipeline reports them; without a report what this server holds.

import { h } from "../dom.js";
import { count, duration, minute, ms } from "../format.js";
import { dagster, linked, maybe } from "../parts.js";
import { missing, num, Table } from "../table.js";

/** The table of assets, which has more columns while there is a report. */
export class AssetTables {
  element = h("div");
  #reported = null;
  #table = null;

  constructor(store) {
    this.store = store;
  }

  /** Show the present state. */
  draw() {
    const { report } = this.store.data.state;
    if (this.#reported !== Boolean(report)) {
      this.#reported = Boolean(report);
      this.#table = table(this.store, this.#reported);
      this.element.replaceChildren(this.#table.element);
    }
    this.#table.update(rows(this.store, report));
  }
}

function rows(store, report) {
  if (report) return report.assets;
  return Object.values(store.board.provenance.tables).map((about) => ({ asset: about.table.replace(".", "/"), about }));
}

function table(store, reported) {
  const shown = [asset(store), ...(reported ? ofReport(store) : ofTables)];
  const caption = `In flow order${reported ? "" : "; crypto-assets up also reports rows, checks and runs"}`;
  return new Table(shown, { caption, key: (row) => row.asset, empty: "No table was written yet." });
}

const asset = (store) => ({
  id: "asset",
  label: "Asset",
  lead: true,
  cell: (row) => linked(store, row.asset, row.asset),
});

const ofTables = [
  { id: "version", label: "Version", num: true, cell: (row) => num(count(row.about.table_version)) },
  { id: "committed", label: "Committed, UTC", fit: true, cell: (row) => minute(row.about.committed_at) },
  newest((row) => row.about.newest_event_at),
  {
    id: "run",
    label: "Run",
    cell: (row) =>
      row.about.run_url ? h("a", { href: row.about.run_url }, "of the commit") : missing("Dagster is not running"),
  },
];

const ofReport = (store) => [
  {
    id: "rows",
    label: "Rows",
    num: true,
    cell: (row) => maybe(row.rows, (n) => num(count(n)), "no table, or not created yet"),
  },
  newest((row) => row.newest_event),
  { id: "green", label: "Checks green", num: true, cell: (row) => num(count(row.checks_green)) },
  {
    id: "red",
    label: "Not green",
    num: true,
    cell: (row) => (row.checks_red.length ? h("span", { class: "over" }, count(row.checks_red.length)) : num("0")),
  },
  { id: "run", label: "Last run", fit: true, cell: (row) => lastRun(store, row.last_run) },
];

function newest(of) {
  return {
    id: "newest",
    label: "Newest event, UTC",
    fit: true,
    cell: (row) => maybe(of(row), minute, "its rows have no event time"),
  };
}

function lastRun(store, run) {
  if (!run) return missing("no run made it yet");
  const age = run.age_s + (store.now() - ms(store.data.state.written_at)) / 1000;
  const words = `${run.state.toLowerCase().replaceAll("_", " ")}, ${duration(age)} ago`;
  const shown = run.state === "FAILURE" ? h("span", { class: "over" }, words) : words;
  const ui = dagster(store);
  return ui && run.run_id ? h("a", { href: `${ui}/runs/${run.run_id}` }, shown) : shown;
}
