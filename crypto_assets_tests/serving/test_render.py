"""Rendered dashboards, SQL files, alerts and rules: every reference leads somewhere, all SQL runs on both engines."""

from __future__ import annotations

import json
import operator
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

import crypto_assets
from crypto_assets import rendered_files
from crypto_assets.checks.freshness import cadence_s
from crypto_assets.contracts.tables import TABLES
from crypto_assets.engine.base import Engine
from crypto_assets.serving.lake import Lake
from crypto_assets.serving.queries import BOARD, CATALOGUE
from crypto_assets.serving.query import QueryError
from crypto_assets.serving.render import alerts_v2, boards, grafana, lakeview, prometheus, sql
from crypto_assets.serving.render.alerts_v2 import Alert
from crypto_assets.settings import Settings
from crypto_assets_tests.serving import lakes
from crypto_assets_tests.serving.home import END
from crypto_assets_tests.test_docs import anchors

if TYPE_CHECKING:
    from crypto_assets_tests.engine_fixtures import MakeEngine

ROOT = Path(crypto_assets.__file__).parents[1]
DASHBOARD = json.loads((ROOT / boards.PATH).read_text())
GRAFANA = json.loads((ROOT / grafana.PATH).read_text())
DATASETS = {dataset["name"]: dataset for dataset in DASHBOARD["datasets"]}
ALERTS = yaml.safe_load((ROOT / alerts_v2.PATH).read_text())["resources"]["alerts"]
RULES = yaml.safe_load((ROOT / prometheus.FOLDER / "rules.yml").read_text())
ALERT_RULES = yaml.safe_load((ROOT / prometheus.FOLDER / "alerts.yml").read_text())


@pytest.fixture(scope="module")
def reader(served: Settings, make_engine: MakeEngine) -> Engine:
    """The engine of the session on the tables of the small home."""
    return make_engine(served.lake)


def on_spark(text: str, engine: Engine, values: Mapping[str, str]) -> list[dict[str, Any]]:
    """Rows of SQL over `schema.table` names."""
    for name in (n for n in TABLES if re.search(rf"\b(?:FROM|JOIN) {re.escape(n)}\b", text)):
        view = name.replace(".", "__")
        engine.store.read(name).createOrReplaceTempView(view)
        text = re.sub(rf"\b(FROM|JOIN) {re.escape(name)}\b", rf"\1 {view}", text)
    return engine.spark.sql(text, args=dict(values)).toArrow().to_pylist()


def alike(rows: list[dict[str, Any]]) -> list[list[Any]]:
    return [[pytest.approx(v) if isinstance(v, float) else v for v in row.values()] for row in rows]


def at_any_time(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows without ages, which count to the present in a workspace and to the newest quote in a recording."""
    return [{k: v for k, v in row.items() if k != "age_s"} for row in rows]


# --- the Databricks dashboard -----------------------------------------------------------------------------------------


def initial(dataset: Mapping[str, Any]) -> dict[str, str]:
    """Value of every parameter of a dataset before a reader chooses one."""
    return {p["keyword"]: p["defaultSelection"]["values"]["values"][0]["value"] for p in dataset.get("parameters", [])}


def selected(dataset: Mapping[str, Any]) -> set[str]:
    """Columns of a dataset."""
    name = dataset["name"]
    return {c.name for c in CATALOGUE[name].columns} if name in CATALOGUE else {name.removeprefix("choices_")}


def faults(document: Mapping[str, Any]) -> list[str]:
    """What is wrong with a dashboard: names that are not unique or lead nowhere, versions, places on the grid."""
    found: list[str] = []
    datasets = {d["name"]: d for d in document["datasets"]}
    names = [d["name"] for d in document["datasets"]] + [p["name"] for p in document["pages"]]
    asked: set[tuple[str, str]] = set()
    for page in document["pages"]:
        cells: set[tuple[int, int]] = set()
        for placed in page["layout"]:
            widget, place = placed["widget"], placed["position"]
            names.append(widget["name"])
            found += [f"{widget['name']}: {text}" for text in _widget_faults(widget, datasets)]
            asked |= {(q["query"]["datasetName"], p["keyword"]) for q in widget["queries"]
                      for p in q["query"].get("parameters", [])}  # fmt: skip
            x, y, width, height = (place[k] for k in ("x", "y", "width", "height"))
            own = {(column, row) for column in range(x, x + width) for row in range(y, y + height)}
            if x < 0 or x + width > lakeview.WIDTH or min(width, height) < 1:
                found.append(f"{widget['name']}: not on the grid")
            if own & cells:
                found.append(f"{widget['name']}: overlaps another")
            cells |= own
    found += [f"{name} is not unique" for name in sorted({n for n in names if names.count(n) > 1})]
    found += [f"{d['name']}: no filter sets {keyword}" for d in document["datasets"] for keyword in initial(d)
              if (d["name"], keyword) not in asked]  # fmt: skip
    return found


def _widget_faults(widget: Mapping[str, Any], datasets: Mapping[str, Any]) -> list[str]:
    found, fields, parameters = [], {}, {}
    for query in widget["queries"]:
        name, asked = query["name"], query["query"]
        if asked["datasetName"] not in datasets:
            found.append(f"no dataset {asked['datasetName']}")
            continue
        dataset = datasets[asked["datasetName"]]
        for each in asked.get("fields", []):
            column = re.fullmatch(r"(?:[A-Z]+\()?`(\w+)`\)?", each["expression"])
            if column is None or column[1] not in selected(dataset):
                found.append(f"no column {each['expression']} in {dataset['name']}")
            fields[name, each["name"]] = each
        for each in asked.get("parameters", []):
            if each["keyword"] not in initial(dataset):
                found.append(f"no parameter {each['keyword']} in {dataset['name']}")
            parameters[name, each["name"]] = each
    spec = widget["spec"]
    if spec["version"] != lakeview.VERSIONS.get(spec["widgetType"]):
        found.append(f"version {spec['version']} of {spec['widgetType']}")
    for encoding in _encodings(spec["encodings"]):
        query = encoding.get("queryName", "main_query")
        known = fields if "fieldName" in encoding else parameters
        if (query, encoding.get("fieldName", encoding.get("parameterName"))) not in known:
            found.append(f"no field {encoding.get('fieldName', encoding.get('parameterName'))} in query {query}")
    return found


def _encodings(tree: Any) -> list[dict[str, Any]]:
    """Every object that names a field or parameter."""
    below = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ()
    here = [tree] if isinstance(tree, dict) and tree.keys() & {"fieldName", "parameterName"} else []
    return here + [each for child in below for each in _encodings(child)]


@pytest.mark.engine("local")
def test_references_and_places_of_the_dashboard_are_sound():
    assert faults(DASHBOARD) == []
    shown = {q["query"]["datasetName"] for p in DASHBOARD["pages"] for w in p["layout"] for q in w["widget"]["queries"]}
    assert shown == set(DATASETS)
    assert {p["name"] for p in DASHBOARD["pages"]} == {
        *("prices", "volume", "leaderboard", "anomalies", "forecasts", "pipeline")
    }


def _wrong_field(document: dict[str, Any]) -> None:
    _first(document, "line")["queries"][0]["query"]["fields"][1]["expression"] = "`price_eur`"


def _wrong_encoding(document: dict[str, Any]) -> None:
    _first(document, "bar")["spec"]["encodings"]["y"]["fieldName"] = "sum(change_24h)"


def _wrong_version(document: dict[str, Any]) -> None:
    _first(document, "counter")["spec"]["version"] = 3


def _wrong_place(document: dict[str, Any]) -> None:
    document["pages"][0]["layout"][-1]["position"]["y"] = 0


def _wrong_parameter(document: dict[str, Any]) -> None:
    _first(document, "filter-single-select")["queries"][1]["query"]["parameters"][0]["keyword"] = "coins"


def _first(document: dict[str, Any], kind: str) -> dict[str, Any]:
    return next(
        w["widget"] for p in document["pages"] for w in p["layout"] if w["widget"]["spec"]["widgetType"] == kind
    )


@pytest.mark.engine("local")
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_wrong_field, r"prices_2_line: no column `price_eur` in price_line"),
        (_wrong_encoding, r"leaderboard_1_bar: no field sum\(change_24h\) in query main_query"),
        (_wrong_version, "anomalies_1_counter: version 3 of counter"),
        (_wrong_place, "prices_2_line: overlaps another"),
        (_wrong_parameter, "prices_filter_coin: no parameter coins in price_line.*price_line: no filter sets coin"),
    ],
)
def test_a_planted_fault_of_the_dashboard_is_found(spoil: Callable[[dict[str, Any]], None], message: str):
    document = deepcopy(DASHBOARD)
    spoil(document)
    assert re.search(message, "; ".join(faults(document)))


@pytest.mark.engine("local")
def test_a_page_that_names_a_column_its_query_lacks_is_not_rendered():
    page = replace(boards.PAGES[0], widgets=(lakeview.Widget("table", "x", BOARD, ("price_eur",)),))
    with pytest.raises(KeyError, match="price_eur"):
        lakeview.document([page])
    with pytest.raises(ValueError, match="on more than one page: board, price_line"):
        lakeview.document([boards.PAGES[0], replace(boards.PAGES[0], name="again")])


@pytest.mark.parametrize("name", DATASETS)
def test_datasets_give_the_rows_of_the_catalogue_on_both_engines(name: str, lake: Lake, reader: Engine):
    text, values = "".join(DATASETS[name]["queryLines"]), initial(DATASETS[name])
    found = lake.rows(text, values).records()
    assert found
    assert {*found[0]} == selected(DATASETS[name])
    if name in CATALOGUE:
        given = {k: v for k, v in values.items() if v != lakeview.EVERY}
        assert at_any_time(found) == at_any_time(lake.answer(CATALOGUE[name], **given).records())
    assert alike(on_spark(text, reader, values)) == alike(found)


@pytest.mark.engine("local")
def test_ages_count_to_the_present(lake: Lake):
    """Data that stand still must not look new."""
    age = (datetime.now(UTC) - END).total_seconds()
    for text in ("".join(DATASETS["board"]["queryLines"]), sql.with_parameters(CATALOGUE["latest_prices"], {})):
        rows = lake.rows(text, initial(DATASETS["board"])).records()
        assert min(row["age_s"] for row in rows) == pytest.approx(age, abs=60)


@pytest.mark.engine("local")
def test_filters_choose_among_values_that_their_queries_accept(lake: Lake):
    for name, text in lakeview.CHOICES.items():
        offered = [row[name] for row in lake.rows(text).records()]
        parameters = [(q, p) for q in CATALOGUE.values() for p in q.parameters if p.name == name]
        assert parameters
        for query, _ in parameters:
            for each in offered:
                query.bound(**{name: None if each == lakeview.EVERY else each})
        for page in DASHBOARD["pages"]:
            for dataset in (
                DATASETS[q["query"]["datasetName"]] for w in page["layout"] for q in w["widget"]["queries"]
            ):
                assert initial(dataset).get(name, offered[0]) in offered


# --- SQL files and SQL alerts -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CATALOGUE)
def test_sql_files_give_the_rows_of_the_catalogue_on_both_engines(name: str, lake: Lake, reader: Engine):
    text = (ROOT / sql.FOLDER / f"{name}.sql").read_text()
    use, select = re.fullmatch(r"(?:--.*\n)+\n(USE CATALOG `\w+`);\n\n(.+);\n", text, re.S).groups()
    assert use == f"USE CATALOG `{Settings.model_fields['catalog'].default}`"
    found = lake.rows(select).records()
    assert at_any_time(found) == at_any_time(lake.answer(CATALOGUE[name]).records())
    assert alike(on_spark(select, reader, {})) == alike(found)


@pytest.mark.engine("local")
def test_a_text_for_a_parameter_that_does_not_exist_is_refused():
    with pytest.raises(KeyError, match="query board has no parameter hours"):
        sql.with_parameters(BOARD, {"hours": "1"})


def fires(alert: Alert, rows: list[dict[str, Any]]) -> bool:
    values = [row[alert.column] for row in rows if row[alert.column] is not None]
    if not rows or (not values and alert.aggregate != "COUNT"):
        return False
    found = {"COUNT": len, "MIN": min, "MAX": max}[alert.aggregate](values)
    return {"GREATER_THAN": operator.gt, "LESS_THAN": operator.lt}[alert.operator](found, alert.threshold)


@pytest.mark.parametrize(
    ("name", "firing"),
    [("prices_stale", True), ("anomalies_flagged", True), ("quarantine_high", False), ("credits_low", False),
     ("errors_open", True)],
)  # fmt: skip
def test_alerts_fire_by_their_condition_on_both_engines(name: str, firing: bool, lake: Lake, reader: Engine):
    (alert,) = (a for a in alerts_v2.ALERTS if a.name == name)
    made = ALERTS[name]
    assert made["evaluation"]["source"]["name"] == alert.column
    text, tables = re.subn(r"`\$\{var\.catalog\}`\.`(\w+)`\.`(\w+)`", r"\1.\2", made["query_text"])
    assert tables >= 1
    found = lake.rows(text).records()
    assert [fires(alert, rows) for rows in (found, on_spark(text, reader, {}))] == [firing, firing]


@pytest.mark.engine("local")
def test_alerts_read_columns_that_their_queries_have(lake: Lake):
    assert set(ALERTS) == {"prices_stale", "anomalies_flagged", "quarantine_high", "credits_low", "errors_open"}
    for alert in alerts_v2.ALERTS:
        assert {alert.column, *alert.where} <= {c.name for c in alert.query.columns}
    wrong = replace(alerts_v2.ALERTS[2], where={"metrics": "dedup_rate"})
    with pytest.raises(QueryError, match="metrics"):
        lake.rows(wrong.sql("x").replace("`x`.`ops`.`pipeline_metrics`", "ops.pipeline_metrics"))


# --- Prometheus and Grafana -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scraped(tmp_path_factory: pytest.TempPathFactory) -> str:
    """`/metrics` of a home with a price, after a request."""
    lake = lakes.Lake(tmp_path_factory.mktemp("scraped"))
    lake.merge("gold.latest_prices", [lakes.price("bitcoin", "1.5")])
    lake.look()
    lake.get("/v1/prices/latest")
    lake.service.meters.scored("anomaly", 2, 0.04)
    answer = lake.client.get("/metrics")
    assert answer.status_code == 200
    return answer.text


def exported(text: str) -> set[str]:
    """Names that a sample of an exported metric can have."""
    kinds = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.M))
    names = {f"{name}{end}" for name, kind in kinds.items() for end in ("_bucket", "_sum", "_count")
             if kind == "histogram"}  # fmt: skip
    return names | {name for name, kind in kinds.items() if kind != "histogram"}


def expressions() -> dict[str, str]:
    """PromQL of every rule and panel by its place."""
    found = {r.get("record", r.get("alert")): r["expr"]
             for document in (RULES, ALERT_RULES) for group in document["groups"] for r in group["rules"]}  # fmt: skip
    return found | {f"{p['title']} {t['refId']}": t["expr"] for p in GRAFANA["panels"] for t in p["targets"]}


@pytest.mark.engine("local")
def test_every_metric_of_rules_and_panels_is_exported(scraped: str):
    recorded = {rule["record"] for group in RULES["groups"] for rule in group["rules"]}
    known = exported(scraped) | recorded
    named = {place: set(re.findall(r"\bcrypto_assets[\w:]*", expr)) for place, expr in expressions().items()}
    assert {place: names - known for place, names in named.items() if not names or names - known} == {}
    pipeline = {name for name in exported(scraped) if not name.endswith(("_created", "_sum", "_count"))}
    assert pipeline - set().union(*named.values()) == set(), "each exported metric is in a rule or panel"


@pytest.mark.engine("local")
def test_labels_of_rules_and_panels_are_exported(scraped: str):
    for place, expr in expressions().items():
        for name, labels in re.findall(r"\b(crypto_assets\w+)\{([^}]*)\}", expr):
            for label, _, _ in re.findall(r'(\w+)(=~|=)"([^"]*)"', labels):
                samples = re.findall(rf"^{name}\{{(.*?)\}} ", scraped, re.M)
                assert not samples or any(f'{label}="' in sample for sample in samples), place


@pytest.mark.engine("local")
def test_ids_and_places_of_panels_are_unique():
    ids = [p["id"] for p in GRAFANA["panels"]]
    assert len(set(ids)) == len(ids)
    cells: set[tuple[int, int]] = set()
    for panel in GRAFANA["panels"]:
        place = panel["gridPos"]
        own = {(x, y) for x in range(place["x"], place["x"] + place["w"])
               for y in range(place["y"], place["y"] + place["h"])}  # fmt: skip
        assert place["x"] + place["w"] <= grafana.WIDTH
        assert not own & cells, panel["title"]
        cells |= own
        refs = [t["refId"] for t in panel["targets"]]
        assert len(set(refs)) == len(refs) > 0


@pytest.mark.engine("local")
def test_every_alert_has_its_row_in_the_runbook():
    rules = [rule for group in ALERT_RULES["groups"] for rule in group["rules"]]
    assert len({rule["alert"] for rule in rules}) == len(rules)
    runbook = ROOT / "docs" / "runbook.md"
    section = runbook.read_text().partition("## Alerts of Prometheus")[2].partition("\n## ")[0]
    assert set(re.findall(r"`(CryptoAssets\w+)`", section)) == {rule["alert"] for rule in rules}
    for rule in rules:
        page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
        assert anchor in anchors(ROOT / page)
        assert rule["labels"]["severity"] in ("warn", "error")


@pytest.mark.engine("local")
def test_thresholds_follow_the_cadence_of_the_demo_plan(tmp_path: Path):
    assert (
        cadence_s(Settings(home_path=tmp_path, source="coingecko", coingecko_api_key="for-test"))
        == prometheus.CADENCE_S
    )


def promtool(*arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed (Debian: apt-get install prometheus)")
    command, folder = ["promtool", *arguments], ROOT / prometheus.FOLDER
    return subprocess.run(command, check=False, cwd=folder, input=given, capture_output=True, text=True, timeout=60)


@pytest.mark.engine("local")
def test_promtool_accepts_rules_and_configuration():
    for arguments in (("rules", "rules.yml", "alerts.yml"), ("config", "prometheus.yml")):
        done = promtool("check", *arguments)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.engine("local")
def test_promtool_accepts_the_exported_metrics(scraped: str):
    done = promtool("check", "metrics", given=scraped)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


# --- the files of the checkout ----------------------------------------------------------------------------------------


@pytest.mark.engine("local")
@pytest.mark.parametrize(
    "path",
    [boards.PATH, alerts_v2.PATH, grafana.PATH, f"{prometheus.FOLDER}/rules.yml", f"{prometheus.FOLDER}/alerts.yml",
     f"{sql.FOLDER}/board.sql"],
)  # fmt: skip
def test_a_stale_file_fails_the_check(path: str, tmp_path: Path):
    files = {p: render for p, render in rendered_files.of_contracts(ROOT).items() if p == path}
    assert rendered_files.stale(ROOT, files) == []
    rendered_files.write(tmp_path, files)
    (tmp_path / path).write_text((ROOT / path).read_text().replace("gold", "golden").replace("crypto_assets", "other"))
    assert rendered_files.stale(tmp_path, files) == [path]


@pytest.mark.engine("local")
def test_no_file_is_left_of_a_query_that_is_gone():
    assert {p.stem for p in (ROOT / sql.FOLDER).iterdir()} == set(CATALOGUE)
