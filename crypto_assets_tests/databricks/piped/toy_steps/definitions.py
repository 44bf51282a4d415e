"""The toy steps as Dagster assets, for a driver. The far side imports only `toy_steps.work`."""

import os
from dataclasses import replace
from pathlib import Path

import dagster as dg
from toy_steps import work

from crypto_assets.assets.card import ModelAsset, Step
from crypto_assets.contracts.tables import TABLES
from crypto_assets.databricks.launcher.launcher_config import PACKAGE
from crypto_assets.databricks.pipes.client import pipes_resource
from crypto_assets.engine.inputs import StepInputBuilder
from crypto_assets.orchestration.shell import build_step
from crypto_assets.settings import Settings, load_settings

HOURLY = dg.HourlyPartitionsDefinition("2026-01-01-00:00", end_offset=1)
PACKAGES = (PACKAGE, Path(__file__).parent)
MODEL = Step(
    "toy_model",
    [ModelAsset("ml", "toy", "A toy.", "team:ml", "ml", ("python",), grain=None)],
    checks={"toy_check": "A toy check."},
    skippable=True,
    work=work.model,
)
BARS = Step("toy_bars", [TABLES[name] for name in work.BARS], subset=True, work=work.bars)


class Planned(StepInputBuilder):
    """The product's inputs, and what the test asks of the toy."""

    def __init__(self, settings: Settings, plan: str) -> None:
        super().__init__(settings)
        self.plan = plan

    def build(self, **asked):
        inputs = super().build(**asked)
        return replace(inputs, params={**inputs.params, "plan": self.plan})


def assets() -> list[dg.AssetsDefinition]:
    return [
        build_step(MODEL, partitions_def=None),
        build_step(BARS, partitions_def=HOURLY),
    ]


def resources(settings: Settings, plan: str) -> dict:
    here = settings.target == "local"
    return {
        "engine": dg.ResourceDefinition.hardcoded_resource(object()),
        "step_inputs": dg.ResourceDefinition.hardcoded_resource(Planned(settings, plan)),
        "step_launcher": dg.ResourceDefinition.none_resource() if here else pipes_resource(settings, PACKAGES),
    }


if "TOY_PLAN" in os.environ:  # a driver in a process of its own
    defs = dg.Definitions(
        assets=assets(),
        executor=dg.in_process_executor,
        resources=resources(load_settings(), os.environ["TOY_PLAN"]),
    )
