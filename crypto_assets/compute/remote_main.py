"""The file that a launched step's task runs: the launcher's own main, then an exit code that tells the truth.

The launcher's main ends well when the step has failed, which left the run green in the workspace. This one reads the
events that were written and exits non-zero after a failure. It is uploaded as a file of its own and imports nothing of
our package, which is unpacked only inside the main.
"""

from __future__ import annotations

import gzip
import pickle
import sys
from pathlib import Path
from typing import Any

FAILURES = ("STEP_FAILURE", "STEP_UP_FOR_RETRY")


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


def run(arguments: list[str], cluster: dict[str, Any]) -> None:
    """Run the launcher's main with what the runtime defines globally (`sc`, `dbutils`).

    Raises:
        SystemExit: The step has failed; its events say how.
    """
    from dagster_databricks import databricks_step_main

    for name in ("sc", "dbutils"):
        if name in cluster:
            setattr(databricks_step_main, name, cluster[name])
    databricks_step_main.main(*arguments)
    failures = failed_events(Path(arguments[0]).parent)
    if failures:
        raise SystemExit(f"the step ended with {failures[-1]}; its events were sent to the driver")


if __name__ == "__main__":
    run(sys.argv[1:4], globals())
