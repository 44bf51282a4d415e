// State of the pipeline: promise and lag, its own metrics, credits, alerts, tables and disk.

import { h } from "../dom.js";
import { count, duration, fixed, minute, ms, time } from "../format.js";
import { absent, age, facts, firing, linked, maybe, sparkline } from "../parts.js";
import { ask } from "../store.js";
import { missing, num, Table } from "../table.js";
import { AssetTables } from "./assets.js";

const HOUR_MS = 3_600_000;
const DAY_S = 86_400;
const STALE_S = 60;
const LONG = 120;
const METRICS = {
  messages_produced: "Messages produced",
  dedup_rate: "Duplicates dropped",
  quarantine_rate: "Quarantined",
  polls_ok_rate: "Polls answered",
  processing_latency_ms_p50: "Processing latency, median",
  processing_latency_ms_p99: "Processing latency, 99th percentile",
  model_inference_latency_ms: "Model inference latency",
};

/** Show it; see `app.show`. */
export async function show(root, { store, signal }) {
  const parts = { state: h("div"), promise: h("div"), money: h("div"), source: h("div") };
  const [metrics, alerts, tables] = [metricTable(), alertTable(store), new AssetTables(store)];
  const checks = checkTable(store);
  root.append(
    h("h1", {}, "Pipeline"),
    parts.state,
    parts.promise,
    h("h2", {}, "Alerts that fire"),
    alerts.element,
    h("h2", {}, "Metrics"),
    metrics.element,
    h("h2", {}, "Source and disk"),
    parts.money,
    h("h2", {}, "Checks that are not green"),
    checks.element,
    h("h2", {}, "Tables and runs"),
    tables.element,
  );
  let [credits, disk] = [null, null];
  const draw = () => {
    parts.state.replaceChildren(stateOf(store));
    parts.promise.replaceChildren(promiseOf(store));
    parts.money.replaceChildren(moneyOf(credits, disk));
    alerts.update(firing(store.data.alerts));
    metrics.update(byMetric(store.data.metrics));
    checks.update(red(store));
    tables.draw();
  };
  const load = async () => {
    [credits, disk] = await Promise.all([
      ask("v1/queries/credits_left").then(
        ({ data }) => data[0] ?? null,
        () => null,
      ),
      ask("v1/status").then(
        ({ data }) => data.disk ?? null,
        () => null,
      ),
    ]);
    if (!signal.aborted) draw();
  };
  for (const name of ["board", "alert"]) store.on(name, draw, signal);
  store.on("reset", load, signal);
  const ticking = setInterval(() => parts.promise.replaceChildren(promiseOf(store)), 1_000); // ages
  signal.addEventListener("abort", () => clearInterval(ticking));
  draw();
  await load();
}

const VERDICTS = {
  ok: ["good", "The promise of freshness is kept."],
  "no promise": ["neutral", "Nothing is promised for this home: nothing keeps it fresh."],
  "promise broken": ["bad", "The promise of freshness is broken."],
  "cannot tell": ["bad", "Whether the promise of freshness is kept cannot be determined."],
};

function stateOf(store) {
  const { state, report, written_at: written } = store.data.state;
  const unknown = report
    ? `The state is unknown since ${time(written)} UTC.`
    : `${state[0].toUpperCase()}${state.slice(1)}.`;
  const [kind, words] = VERDICTS[state] ?? ["neutral", unknown];
  const reasons = state in VERDICTS ? [...(report?.problems ?? []), ...(report?.unknown ?? [])] : [];
  return h(
    "div",
    { class: `state ${kind}` },
    h("p", {}, h("b", {}, words)),
    reasons.length
      ? h(
          "ul",
          {},
          reasons.map((reason) => h("li", {}, reason)),
        )
      : "",
  );
}

function promiseOf(store) {
  const { report, written_at: written } = store.data.state;
  const newest = age(store);
  const since = report ? (store.now() - ms(written)) / 1000 : null;
  const quote = [
    "Newest quote",
    newest ? h("span", { class: newest.old ? "over" : "" }, `${duration(newest.age)} old`) : absent("no quote yet"),
  ];
  if (!report)
    return facts([
      quote,
      ["Promise, lag, poll interval, producer", absent("reported by crypto-assets up, which does not run")],
    ]);
  const ticked = report.producer?.newest_tick_age_s ?? null;
  const records = report.lag_records === null ? "" : `, ${count(report.lag_records)} records`;
  return facts([
    quote,
    since > STALE_S && ["Report, with all that follows", h("span", { class: "over" }, `${duration(since)} old`)],
    ["Promised at most", duration(report.promised_s)],
    ["Lag", report.lag_s === null ? absent(report.lag_unknown_because) : `${duration(report.lag_s)}${records}`],
    ["Poll interval", duration(report.cadence_s)],
    [
      "Producer",
      !report.producer?.running
        ? "stopped"
        : ticked === null
          ? "runs, no good tick yet"
          : `ticked ${duration(ticked + since)} ago`,
    ],
    ["Service", report.service],
  ]);
}

function moneyOf(credits, disk) {
  const unasked = "the query credits_left did not answer";
  const why = credits?.null_reason ?? unasked;
  const known = (value) => value !== null && value !== undefined;
  const dry = known(credits?.days_left) ? minute(ms(credits.polled_at) + 1000 * DAY_S * credits.days_left) : null;
  return facts([
    ["Credits left", known(credits?.credits_left) ? count(credits.credits_left) : absent(why)],
    known(credits?.credits_used_24h) && ["Credits used in 24 h", count(credits.credits_used_24h)],
    ["Credits run out", dry ? `${dry} UTC, in ${fixed(credits.days_left, 1)} days` : absent(why)],
    ["Polls in 24 h", known(credits?.polls_24h) ? count(credits.polls_24h) : absent(unasked)],
    ["Home on disk", disk ? bytes(disk.home_bytes) : absent("not measured yet")],
    disk && ["Written in 24 h", bytes(disk.written_24h_bytes)],
    disk && [
      "Free",
      `${bytes(disk.free_bytes)}${disk.written_24h_bytes ? `, at this pace for ${duration((DAY_S * disk.free_bytes) / disk.written_24h_bytes)}` : ""}`,
    ],
  ]);
}

const UNITS = [
  [1e12, "TB"],
  [1e9, "GB"],
  [1e6, "MB"],
  [1e3, "kB"],
];

function bytes(value) {
  const [scale, unit] = UNITS.find(([least]) => value >= least) ?? [1, "B"];
  return `${fixed(value / scale, scale > 1 ? 1 : 0)} ${unit}`;
}

// --- metrics ------------------------------------------------------------------------------------------------------

/** Rows of each metric, in the order above, then any other. */
function byMetric(rows) {
  const names = [...new Set([...Object.keys(METRICS), ...rows.map((row) => row.metric)])];
  return names
    .map((metric) => ({ metric, rows: rows.filter((row) => row.metric === metric) }))
    .filter((one) => one.rows.length);
}

const measured = ({ rows }) => rows.filter((row) => row.value !== null);

function metricValue({ value, unit }) {
  if (unit === "ratio") return num(fixed(100 * value, 2), "%");
  if (unit === "ms") return value >= 10_000 ? num(fixed(value / 1000, 1), "s") : num(fixed(value, 0), "ms");
  return num(count(value));
}

function metricTable() {
  const none = "nothing to measure in these hours";
  const newest = (one) => measured(one).at(-1);
  const line = (one) => measured(one).map((row) => [row.hour, row.value]);
  return new Table(
    [
      {
        id: "metric",
        label: "Metric",
        lead: true,
        cell: ({ metric }) => h("span", { class: "metric" }, METRICS[metric] ?? metric, h("code", {}, metric)),
      },
      {
        id: "value",
        label: "Newest hour",
        num: true,
        mixed: true,
        cell: (one) => (newest(one) ? metricValue(newest(one)) : missing(none)),
      },
      {
        id: "hour",
        label: "Hour from, UTC",
        fit: true,
        cell: (one) => (newest(one) ? minute(newest(one).hour) : missing(none)),
      },
      {
        id: "over",
        label: "Measured over",
        num: true,
        cell: (one) => (newest(one) ? num(count(newest(one).measured_over)) : missing(none)),
      },
      {
        id: "mean",
        label: "Mean of the hours",
        num: true,
        mixed: true,
        cell: (one) =>
          newest(one)
            ? metricValue({
                unit: one.rows[0].unit,
                value: measured(one).reduce((sum, row) => sum + row.value, 0) / measured(one).length,
              })
            : missing(none),
      },
      {
        id: "hours",
        label: "Hours with a value",
        num: true,
        cell: (one) => num(`${measured(one).length} of ${one.rows.length}`),
      },
      {
        id: "line",
        label: "24 hours",
        cell: (one) => ({
          sig: JSON.stringify([line(one)[0], line(one).at(-1)]),
          node: () => sparkline(line(one), HOUR_MS, ({ length }) => `${length} hourly values`),
        }),
      },
    ],
    {
      caption: "The newest 24 hours that are measured (ops.pipeline_metrics)",
      key: ({ metric }) => metric,
      empty: "No hour was measured yet.",
    },
  );
}

// --- alerts -------------------------------------------------------------------------------------------------------

function alertTable(store) {
  return new Table(
    [
      { id: "at", label: "Since, UTC", lead: true, fit: true, cell: (row) => minute(row.at) },
      {
        id: "severity",
        label: "Severity",
        cell: (row) => h("span", { class: row.severity === "error" ? "over" : "" }, row.severity),
      },
      { id: "cause", label: "Cause", cell: (row) => causeOf(store, row) },
      { id: "summary", label: "Finding and remedy", cell: (row) => row.summary },
      {
        id: "delivered",
        label: "Delivered, UTC",
        cell: (row) => maybe(row.delivered_at, minute, "no webhook, or not delivered yet"),
      },
      {
        id: "runbook",
        label: "Runbook",
        cell: (row) => runbook(row.check_name ?? row.rule),
      },
    ],
    { caption: "Newest first (ops.alerts)", key: (row) => row.alert_id, empty: "No alert fires." },
  );
}

/** What fires: an asset in Dagster, or a coin that a rule of the market is about. */
function causeOf(store, row) {
  if (row.coin_id) return h("a", { href: `#/coin/${encodeURIComponent(row.coin_id)}` }, row.cause);
  return linked(store, row.asset, row.cause);
}

function runbook(check) {
  return h("a", { href: `runbook.html#${check ?? "an-alert-arrived"}` }, check ?? "An alert arrived");
}

// --- checks -------------------------------------------------------------------------------------------------------

/** Checks of the report that are not green, one row each. */
function red(store) {
  const { report } = store.data.state;
  return (report?.assets ?? []).flatMap((one) =>
    one.checks_red.map((label, i) => ({ asset: one.asset, label, finding: one.findings?.[i] ?? "" })),
  );
}

/** A long text of which the beginning shows until it is opened. */
function folded(text) {
  if (text.length <= LONG) return text;
  return h("details", {}, h("summary", {}, `${text.slice(0, text.lastIndexOf(" ", LONG - 20))} …`), text);
}

function checkTable(store) {
  const name = (row) => row.label.replace(/ \(.*/, "");
  return new Table(
    [
      { id: "check", label: "Check", lead: true, cell: (row) => row.label },
      { id: "asset", label: "Asset", cell: (row) => linked(store, row.asset, row.asset) },
      {
        id: "why",
        label: "Finding",
        cell: (row) => (row.finding ? folded(row.finding) : missing("the newest run did not evaluate it")),
      },
      { id: "runbook", label: "Runbook", cell: (row) => runbook(name(row)) },
    ],
    {
      caption: "As the pipeline last reported them",
      key: (row) => `${row.asset} ${row.label}`,
      empty: store.data.state.report ? "Every check is green." : "Unknown: crypto-assets up reports them.",
    },
  );
}
