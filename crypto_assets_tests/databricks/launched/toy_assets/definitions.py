"""Two toy steps behind the product's shell, launcher and inputs. Shipped to the stand-in as a package of its own.

What a step does is told by TOY_PLAN, which the launcher sends: sleep, fail, print a secret. On the cluster every use of
the context's instance raises: it is an ephemeral one there.
"""

import os
import sys
import time
from pathlib import Path

import dagster as dg

import crypto_assets
from crypto_assets.assets.card import ModelAsset, Step
from crypto_assets.databricks.launcher.launcher_config import PACKAGE, STEP_PROCESSES
from crypto_assets.databricks.launcher.resource import launcher_resource
from crypto_assets.engine.base import CheckOutcome, PartitionResult, Result, StepFailed, TableResult
from crypto_assets.engine.inputs import StepInputBuilder
from crypto_assets.orchestration.shell import build_step
from crypto_assets.settings import Settings, load_settings

HOURLY = dg.HourlyPartitionsDefinition("2026-01-01-00:00", end_offset=1)
HERE = Path(__file__).parent


def _result(name, keys, inputs):
    seen = {
        "password": os.environ.get("KAFKA_SASL_PASSWORD") if plan() == "print" else None,
        "package": crypto_assets.__file__,
        "role": load_settings().role,
        "options": {"rebuild": inputs.rebuild, "accept_gap": inputs.accept_gap, "as_of": str(inputs.as_of)},
        "run_id": inputs.run_id,
        "coins": len(inputs.coins),
        "pyspark_started": "pyspark.java_gateway" in sys.modules,
    }
    done = {
        key: PartitionResult(
            3,
            f"v-{key}",
            {**seen, "key": str(key)},
            [CheckOutcome("toy_check", key is None or not key.endswith("01:00"))],
        )
        for key in keys
    }
    return Result({name: TableResult(done, {"run_rows": 3 * len(keys)})})


def plan() -> str:
    """What the test asked for, from an environment variable that the launcher's configuration sends."""
    return os.environ.get("TOY_PLAN", "")


def work(_engine, keys, inputs):
    wanted = plan()
    if wanted == "fail":
        raise StepFailed("the toy was asked to fail")
    if wanted == "crash":
        raise ZeroDivisionError("the toy crashed")
    if wanted == "retry" and not Path(os.environ["TOY_MARK"]).exists():
        Path(os.environ["TOY_MARK"]).touch()
        raise dg.RetryRequested(max_retries=1)
    if wanted == "exit":
        events = Path(sys.argv[1]).with_name("0_events.pkl")
        while not events.stat().st_size:  # they are written once a second
            time.sleep(0.05)
        os._exit(3)
    if wanted == "sleep":
        time.sleep(300)
    if wanted == "print":
        print("the password is", os.environ["KAFKA_SASL_PASSWORD"])
        print(load_settings().kafka_sasl_password)
    if wanted == "tell":
        raise StepFailed(f"cannot log in with {os.environ['KAFKA_SASL_PASSWORD']}")
    if wanted == "burst":
        raise ZeroDivisionError(f"divided {os.environ['KAFKA_SASL_PASSWORD']} by zero")
    if wanted == "peek":
        list(Path(os.environ["TOY_MARK"]).iterdir())
    return _result("ml.toy", keys, inputs)


HOURLY_STEP = Step(
    "toy_hourly",
    [ModelAsset("ml", "toy", "A toy.", "team:ml", "ml", ("python",), grain="hour")],
    checks={"toy_check": "A toy check."},
    work=work,
)
PLAIN_STEP = Step(
    "toy_plain",
    [ModelAsset("ml", "plain", "A toy.", "team:ml", "ml", ("python",), grain=None)],
    checks={"toy_check": "A toy check."},
    work=lambda engine, keys, inputs: Result({"ml.plain": work(engine, keys, inputs).tables["ml.toy"]}),
)


def build(settings: Settings) -> dg.Definitions:
    return dg.Definitions(
        assets=[
            build_step(HOURLY_STEP, partitions_def=HOURLY),
            build_step(PLAIN_STEP, partitions_def=None),
        ],
        executor=dg.multiprocess_executor.configured(STEP_PROCESSES)
        if "TOY_PROCESSES" in os.environ
        else dg.in_process_executor,
        resources={
            "engine": dg.ResourceDefinition.hardcoded_resource(object()),
            "step_inputs": dg.ResourceDefinition.hardcoded_resource(StepInputBuilder(settings)),
            "step_launcher": launcher_resource(settings, {}, (PACKAGE, HERE)),
        },
    )


if plan() == "die":
    os._exit(3)
if plan() == "import":
    import a_library_that_nobody_installed  # noqa: F401  # pyright: ignore[reportMissingImports]


def _no_instance(context):
    if sys._getframe(1).f_globals["__name__"].startswith("dagster."):  # its own code may: it loads partitions by it
        return context.get_step_execution_context().instance
    raise AssertionError("a launched step asked for the instance")


if load_settings().is_remote:
    dg.AssetExecutionContext.instance = property(_no_instance)  # type: ignore[assignment]
    dg.OpExecutionContext.instance = property(_no_instance)  # type: ignore[assignment]

defs = build(load_settings())
