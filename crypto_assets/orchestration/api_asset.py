"""`serving/api` in Dagster: what the API serves, where, and a check that it is ready. Dagster does not run it."""

# Dagster reads the annotations of check functions at run time, so this module has no `annotations` future import.

import json
from pathlib import Path

import dagster as dg

from crypto_assets.errors import reason
from crypto_assets.orchestration.restatement import MODELS
from crypto_assets.orchestration.shell import code_references
from crypto_assets.serving.kept import KEPT, PROMOTIONS
from crypto_assets.web import Client, NoReply

KEY = dg.AssetKey(["serving", "api"])
READY = "ready"
ANSWERS_WITHIN_S = 10.0
_START = "start it: crypto-assets serve (up and ui run it beside Dagster)"


def spec() -> dg.AssetSpec:
    """Spec of the asset."""
    return dg.AssetSpec(
        KEY,
        deps=[*(dg.AssetKey(kept.table.asset_key) for kept in KEPT.values() if kept is not PROMOTIONS), *MODELS],
        description="The REST API and the page, on the port after Dagster's: prices, bars, anomalies, forecasts, "
        "features and a stream of changes. The check leads there.",
        metadata={
            "documentation": "docs/serving.md",
            "address": "state/api.url in the home",
            "dagster/code_references": code_references(judge),
        },
        group_name="serving",
        owners=["team:operations"],
        kinds={"python"},
        tags={"layer": "serving"},
        code_version="1",
    )


def judge(address_file: Path) -> dg.AssetCheckResult:
    """Ask the API whether it is ready.

    Args:
        address_file: File in which it says where it listens.
    """
    if not address_file.exists():
        return _result(None, passed=False, text=f"no API serves this home; {_START}")
    url = address_file.read_text(encoding="utf-8").strip()
    try:
        with Client(trust_env=False, name="api") as client:
            reply = client.send("GET", f"{url}/readyz", deadline_s=ANSWERS_WITHIN_S)
    except NoReply as error:
        return _result(url, passed=False, text=f"{url} does not answer ({reason(error)}); {_START}")
    if reply.status == 200:
        return _result(url, passed=True, text=f"{url} serves {len(json.loads(reply.content)['tables'])} tables")
    return _result(url, passed=False, text=f"{url} is not ready: {_detail(reply.content)}")


def _detail(body: bytes) -> str:
    try:
        return str(json.loads(body)["detail"])
    except (ValueError, KeyError, TypeError):
        return "it gives no reason"


def _result(url: str | None, *, passed: bool, text: str) -> dg.AssetCheckResult:
    links = {} if url is None else {"page": dg.MetadataValue.url(url), "docs": dg.MetadataValue.url(f"{url}/docs")}
    return dg.AssetCheckResult(
        asset_key=KEY,
        check_name=READY,
        passed=passed,
        severity=dg.AssetCheckSeverity.WARN,
        description=text,
        metadata=links,
    )


def ready_check() -> dg.AssetChecksDefinition:
    """The check, which runs from the UI."""

    @dg.asset_check(
        asset=KEY,
        name=READY,
        required_resource_keys={"step_inputs"},
        description="The API of this home answers, and has prices to serve.",
    )
    def ready(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        return judge(context.resources.step_inputs.home().api_address)

    return ready
