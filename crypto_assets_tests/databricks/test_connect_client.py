"""What runs on serverless compute needs no newer Spark Connect client than 4.0, which environment version 4 has."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import crypto_assets

ROOT = Path(crypto_assets.__file__).parent
RUNS_THERE = ("assets", "databricks/pipeline", "engine", "log", "ml", "storage", "streaming", "transforms")

# Public names of `pyspark/sql` in pyspark 4.2.0 that the client of 4.0 (pyspark-client 4.0.0 on PyPI) lacks, by
# comparing the definitions in functions/builtin.py and in the modules of the classes.
FUNCTIONS_SINCE_4_0 = set(
    """
    arrow_udtf bitmap_and_agg chr current_path current_time is_valid_variant kll_merge_agg_bigint
    kll_merge_agg_double kll_merge_agg_float kll_sketch_agg_bigint kll_sketch_agg_double kll_sketch_agg_float
    kll_sketch_get_n_bigint kll_sketch_get_n_double kll_sketch_get_n_float kll_sketch_get_quantile_bigint
    kll_sketch_get_quantile_double kll_sketch_get_quantile_float kll_sketch_get_rank_bigint
    kll_sketch_get_rank_double kll_sketch_get_rank_float kll_sketch_merge_bigint kll_sketch_merge_double
    kll_sketch_merge_float kll_sketch_to_string_bigint kll_sketch_to_string_double kll_sketch_to_string_float
    make_time quote random st_asbinary st_geogfromwkb st_geomfromwkb st_setsrid st_srid theta_difference
    theta_intersection theta_intersection_agg theta_sketch_agg theta_sketch_estimate theta_union theta_union_agg
    time_bucket time_diff time_from_micros time_from_millis time_from_seconds time_to_micros time_to_millis
    time_to_seconds time_trunc to_time try_to_date try_to_time tuple_difference_double tuple_difference_integer
    tuple_difference_theta_double tuple_difference_theta_integer tuple_intersection_agg_double
    tuple_intersection_agg_integer tuple_intersection_double tuple_intersection_integer
    tuple_intersection_theta_double tuple_intersection_theta_integer tuple_sketch_agg_double
    tuple_sketch_agg_integer tuple_sketch_estimate_double tuple_sketch_estimate_integer tuple_sketch_summary_double
    tuple_sketch_summary_integer tuple_sketch_theta_double tuple_sketch_theta_integer tuple_union_agg_double
    tuple_union_agg_integer tuple_union_double tuple_union_integer tuple_union_theta_double
    tuple_union_theta_integer uuid
    """.split()  # noqa: SIM905
)
METHODS_SINCE_4_0 = {
    *("analyzeTable", "createDatabase", "dropDatabase", "dropTable", "dropView", "getCreateTableString"),
    *("getTableProperties", "listPartitions", "listViews", "truncateTable"),  # of Catalog
    *("nearestByJoin", "repartitionById", "toJSON", "zipWithIndex", "emptyDataFrame"),  # of DataFrame and SparkSession
}
"""Not `Column.transform` and `changes`: their names are those of older methods, or of ours."""
TYPES_SINCE_4_0 = {"Geography", "GeographyType", "Geometry", "GeometryType", "SpatialType", "TimeType"}
PARAMETERS_SINCE_4_0 = {
    **{function: {"k"} for function in ("max_by", "min_by")},
    **{f"{attempt}make_timestamp{kind}": {"date", "time"} for attempt in ("", "try_") for kind in ("", "_ntz")},
}


def trees() -> dict[str, ast.Module]:
    """Syntax of every module that a serverless step can run, by path below the package."""
    paths = [path for folder in RUNS_THERE for path in (ROOT / folder).rglob("*.py")]
    return {p.relative_to(ROOT).as_posix(): ast.parse(p.read_text(encoding="utf-8")) for p in paths}


def functions(tree: ast.Module) -> Iterator[str]:
    """Names of `pyspark.sql.functions` that a module uses: by its alias of that module, or imported from it."""
    aliases = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "pyspark.sql":
            aliases |= {n.asname or n.name for n in node.names if n.name == "functions"}
        elif isinstance(node, ast.ImportFrom) and node.module == "pyspark.sql.functions":
            yield from (n.name for n in node.names)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in aliases:
            yield node.attr


def too_new(tree: ast.Module) -> set[str]:
    """What a module uses that a client of 4.0 lacks."""
    found = set(functions(tree)) & FUNCTIONS_SINCE_4_0
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            found |= {node.attr} & METHODS_SINCE_4_0
        elif isinstance(node, ast.ImportFrom) and node.module == "pyspark.sql.types":
            found |= {n.name for n in node.names} & TYPES_SINCE_4_0
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            newer = PARAMETERS_SINCE_4_0.get(node.func.attr, set())
            found |= {f"{node.func.attr}({k.arg}=)" for k in node.keywords if k.arg in newer}
            if "k" in newer and len(node.args) > 2:
                found.add(f"{node.func.attr}(..., k)")
    return found


def test_no_name_is_newer_than_the_client_of_4_0():
    found = {path: too_new(tree) for path, tree in trees().items()}
    assert {path: sorted(names) for path, names in found.items() if names} == {}


def test_the_scan_sees_what_the_transforms_use():
    used = {name for path, tree in trees().items() if path.startswith("transforms/") for name in functions(tree)}
    assert {"col", "lit", "when", "max_by"} <= used


@pytest.mark.parametrize(
    "code",
    [
        "from pyspark.sql import functions as F\nF.try_to_date(a)",
        "from pyspark.sql.functions import time_bucket",
        "frame.zipWithIndex()",
        "from pyspark.sql.types import TimeType",
        "F.max_by(a, b, 3)",
        "F.make_timestamp(date=d, time=t)",
    ],
)
def test_a_newer_name_is_found(code):
    assert too_new(ast.parse(code))
