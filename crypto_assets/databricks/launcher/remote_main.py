"""The file that a launched step's task runs: the launcher's main, followed by a correct exit code.

The launcher's main ends well when the step has failed, which left the run green in the workspace. This one reads the
events that were written and exits non-zero after a failure. And it lets no secret out: not in events, not in output,
not in an error, all of which the workspace keeps and shows. It is uploaded as a separate file and imports nothing of
our package before the main, which unpacks it.
"""

from __future__ import annotations

import gzip
import io
import json
import pickle
import sys
import traceback
from pathlib import Path
from typing import Any

FAILURES = ("STEP_FAILURE", "STEP_UP_FOR_RETRY")


class Secrets:
    """`dbutils` for the main, and the values of every secret that was got by it."""

    def __init__(self, dbutils: Any) -> None:
        self._dbutils = dbutils
        self._values: dict[str, str] = {}

    def __getattr__(self, name: str) -> Any:
        return self if name == "secrets" else getattr(self._dbutils, name)

    def get(self, scope: str, key: str) -> str:
        """As `dbutils.secrets.get`."""
        value = self._dbutils.secrets.get(scope=scope, key=key)
        self._values |= {f"{scope}/{key}": value, f"{scope}/{key} in JSON": json.dumps(value)[1:-1]}
        return value

    def hide(self, text: str) -> str:
        """The text without any of the values."""
        if not self._values:
            return text
        # Secrets are got by a class of our package, so it can be imported by now.
        from crypto_assets.redaction import redact

        return redact(text, self._values)


def failed_events(folder: Path) -> list[str]:
    """Types of the failures among the events of the newest attempt that a step has written into its folder."""
    from dagster._serdes import deserialize_value

    attempts = sorted(folder.glob("*_events.pkl"), key=lambda p: int(p.name.split("_")[0]))
    if not attempts:
        return []
    data = attempts[-1].read_bytes()
    if not data:
        return []
    # The file was written by this very process.
    records: Any = deserialize_value(pickle.loads(gzip.decompress(data)))  # noqa: S301
    found = [r.dagster_event.event_type_value for r in records if r.dagster_event]
    return [kind for kind in found if kind in FAILURES]


def redact_what_leaves(main: Any, secrets: Secrets) -> None:
    """Let the launcher's main write events and captured output without secrets.

    Args:
        main: Its module. Its names `serialize_value` and `StringIO` are replaced: by them all of it is made.
        secrets: Knows the values.
    """
    serialize = main.serialize_value

    class Captured(io.StringIO):
        def getvalue(self) -> str:
            return secrets.hide(super().getvalue())

    main.StringIO = Captured
    main.serialize_value = lambda events: secrets.hide(serialize(events))


def run(arguments: list[str], cluster: dict[str, Any]) -> None:
    """Run the launcher's main with what the runtime defines globally (`sc`, `dbutils`).

    Raises:
        SystemExit: The step failed; its events have the details. Or the main did, with a secret in its error.
    """
    from dagster_databricks import databricks_step_main

    secrets = Secrets(cluster.get("dbutils"))
    databricks_step_main.dbutils = secrets  # type: ignore[attr-defined]
    if "sc" in cluster:
        databricks_step_main.sc = cluster["sc"]  # type: ignore[attr-defined]
    redact_what_leaves(databricks_step_main, secrets)
    try:
        databricks_step_main.main(*arguments)
    except Exception as error:
        text = "".join(traceback.format_exception(error))
        if secrets.hide(text) == text:
            raise
        raise SystemExit(secrets.hide(text)) from None
    failures = failed_events(Path(arguments[0]).parent)
    if failures:
        raise SystemExit(f"the step ended with {failures[-1]}; its events were sent to the driver")


if __name__ == "__main__":
    run(sys.argv[1:4], globals())
