// Every asset with its table, checks and last run, as the pipeline reports them; without a report what this server holds.

import { h } from "../dom.js";
import { count, duration, minute } from "../format.js";
import { dagster, linked, maybe } from "../parts.js";
import { missing, num, Table } from "../table.js";

const UNHELD = "not held by this server";

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
  const held = store.board.provenance.tables;
  if (report) return report.assets.map((one) => ({ ...one, about: held[one.asset.replace("/", ".")] }));
  return Object.values(held).map((about) => ({ asset: about.table.replace(".", "/"), about }));
}

function table(store, reported) {
  const shown = reported ? [...ofTables(store), ...ofReport(store)] : [...ofTables(store), ofCommit];
  const without = "; crypto-assets up also reports rows, checks and runs";
  const caption = `In flow order${reported ? "" : without}`;
  return new Table(shown, { caption, key: (row) => row.asset, empty: "No table was written yet." });
}

const ofTables = (store) => [
  { id: "asset", label: "Asset", lead: true, cell: (row) => linked(store, row.asset, row.asset) },
  {
    id: "version",
    label: "Version",
    num: true,
    cell: (row) => maybe(row.about?.table_version, (version) => num(count(version)), UNHELD),
  },
  {
    id: "committed",
    label: "Committed, UTC",
    fit: true,
    cell: (row) => maybe(row.about?.committed_at, minute, UNHELD),
  },
  {
    id: "newest",
    label: "Newest event, UTC",
    fit: true,
    cell: (row) => maybe(row.newest_event ?? row.about?.newest_event_at, minute, "its rows have no event time here"),
  },
];

const ofReport = (store) => [
  {
    id: "rows",
    label: "Rows",
    num: true,
    cell: (row) => maybe(row.rows, (n) => num(count(n)), "no table, or not created yet"),
  },
  { id: "green", label: "Checks green", num: true, cell: (row) => num(count(row.checks_green)) },
  { id: "red", label: "Not green", cell: (row) => (row.checks_red.length ? red(row.checks_red.join(", ")) : "none") },
  { id: "run", label: "Last run", cell: (row) => lastRun(store, row.last_run) },
];

const ofCommit = {
  id: "run",
  label: "Run",
  cell: (row) =>
    row.about.run_url ? h("a", { href: row.about.run_url }, "of the commit") : missing("Dagster is not running"),
};

const red = (text) => h("span", { class: "over" }, text);

function lastRun(store, run) {
  if (!run) return missing("no run made it yet");
  const words = `${run.state.toLowerCase()}, ${duration(run.age_s)} before the report`;
  const shown = run.state === "FAILURE" ? red(words) : words;
  const ui = dagster(store);
  return ui && run.run_id ? h("a", { href: `${ui}/runs/${run.run_id}` }, shown) : shown;
}
