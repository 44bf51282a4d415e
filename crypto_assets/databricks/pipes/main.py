"""Entry point of a step that runs by Pipes on serverless compute: order in, work, answer out.

Belongs here: what happens in that process. Does not belong here: the driver's side (`pipes`), what travels (`wire`), or
Dagster, which is not installed there (`dagster-pipes` is a separate package).

Messages lie as files on a volume. What the step raises is sent as a message too, and then the process ends with an exit
code other than 0, so that driver and workspace are both red.
"""

from __future__ import annotations

import io
import json
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Any

from crypto_assets.databricks.launcher.failures import shown
from crypto_assets.engine.base import Engine, Result
from crypto_assets.engine.inputs import Shipment
from crypto_assets.engine.spark import Sessions, SparkEngine
from crypto_assets.engine.wire import Order, failure_to_json, result_to_json, sealed, work_at
from crypto_assets.log.kafka.client import client_config
from crypto_assets.redaction import redact
from crypto_assets.settings import Settings, adopt_environment, load_settings

STARTED, RESULT, FAILURE = "started", "result", "failure"
END_OF_CHUNK = "\n"
"""Last character of every file of messages. A file that lacks it is still being written."""


def main() -> None:
    """Run the step described by the task's parameters.

    Raises:
        SystemExit: The step failed; the message has been sent.
    """
    from dagster_pipes import (
        PipesCliArgsParamsLoader,
        PipesUnityCatalogVolumesContextLoader,
        open_dagster_pipes,
    )
    from databricks.sdk.runtime import dbutils

    failed: str | None = None
    with open_dagster_pipes(
        params_loader=PipesCliArgsParamsLoader(),
        context_loader=PipesUnityCatalogVolumesContextLoader(),
        message_writer=_writer(),
    ) as pipes:
        pipes.report_custom_message(sealed(STARTED, ""))
        secrets: dict[str, str] = {}
        try:
            order = Order.from_extras(pipes.extras)
            secrets |= read_secrets(order.secrets, dbutils.secrets.get)
            if secrets:  # the run's log is read by more people than the scope
                sys.stdout = _Redacting(sys.stdout, secrets)  # type: ignore[assignment]
                sys.stderr = _Redacting(sys.stderr, secrets)  # type: ignore[assignment]
            adopt_environment({**order.environment, **secrets})
            load_settings.cache_clear()
            result = run(order, serverless_engine(load_settings()))
            escaped = {name: json.dumps(value)[1:-1] for name, value in secrets.items()}  # as a JSON text holds them
            pipes.report_custom_message(sealed(RESULT, redact(result_to_json(result), escaped)))
        except BaseException as error:  # noqa: BLE001  (report any error to the driver)
            failed = shown(f"{type(error).__name__}: {error}", secrets)
            text = failure_to_json(error, lambda text: shown(text, secrets), traceback.format_exc())
            pipes.report_custom_message(sealed(FAILURE, text))
    if failed is not None:
        raise SystemExit(f"the step failed: {failed}")


def run(order: Order, engine: Engine) -> Result:
    """Execute an order; errors of the step propagate."""
    shipment = Shipment.from_json(order.shipment)
    arguments = {name: tuple(value) for name, value in order.arguments.items()}
    return work_at(order.work)(engine, list(shipment.keys), shipment.inputs, **arguments)


def read_secrets(wanted: Sequence[Mapping[str, str]], get: Callable[[str, str], str]) -> dict[str, str]:
    """Secrets by environment name.

    Args:
        wanted: `{name, scope, key}` of each.
        get: `dbutils.secrets.get(scope, key)`.

    Raises:
        LookupError: Some cannot be read; names all of them.
    """
    found: dict[str, str] = {}
    missing: list[str] = []
    for entry in wanted:
        try:
            found[entry["name"]] = get(entry["scope"], entry["key"])
        except Exception as error:  # noqa: BLE001  (the workspace's own classes are not importable everywhere)
            missing.append(f"{entry['scope']}/{entry['key']} for {entry['name']} ({type(error).__name__})")
    if missing:
        raise LookupError(f"secrets of the workspace cannot be read: {', '.join(missing)}")
    return found


def serverless_engine(settings: Settings) -> Engine:
    """The engine on the session of this compute and the managed tables of the catalog; opens nothing."""

    def session() -> Any:
        from databricks.sdk.runtime import spark

        return spark

    return SparkEngine(
        Sessions(session), lambda: client_config(settings), catalog=settings.catalog, kafka_shaded=settings.kafka_shaded
    )


def _writer() -> Any:
    """Pipes' writer to a volume, whose files are marked when complete.

    The reader counts a file as read once it has got any of it. A volume that shows a file before it is closed would
    lose the rest.
    """
    from dagster_pipes import PipesBufferedFilesystemMessageWriterChannel, PipesUnityCatalogVolumesMessageWriter

    class Channel(PipesBufferedFilesystemMessageWriterChannel):
        def upload_messages_chunk(self, payload: IO[str], index: int) -> None:
            super().upload_messages_chunk(io.StringIO(payload.read() + END_OF_CHUNK), index)

    class Writer(PipesUnityCatalogVolumesMessageWriter):
        def make_channel(self, params: Any) -> Channel:
            return Channel(path=os.fspath(params["path"]), interval=self.interval)

    return Writer(interval=0.5)


class _Redacting(io.TextIOBase):
    """Writes lines on without secrets. A secret that is written in two parts is joined again within its line."""

    def __init__(self, stream: Any, secrets: Mapping[str, str]) -> None:
        self._stream, self._secrets, self._rest = stream, secrets, ""

    def write(self, text: str) -> int:
        whole, newline, self._rest = (self._rest + text).rpartition("\n")
        self._stream.write(redact(whole + newline, self._secrets))
        return len(text)

    def flush(self) -> None:
        self._stream.write(redact(self._rest, self._secrets))
        self._rest = ""
        self._stream.flush()

    def fileno(self) -> int:
        return self._stream.fileno()

    def writable(self) -> bool:
        return True
