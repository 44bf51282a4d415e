"""First code of a task's process: makes it look like a cluster, then runs the task.

Run as `python -I -S prelude.py spec.json` from the workspace's own copy of this folder. Only the standard library is
there until `enter`. Order matters: paths, then what may be opened, then the fake modules, then the task.
"""

from __future__ import annotations

import json
import os
import runpy
import signal
import sys
import threading
import traceback
from importlib import metadata
from pathlib import Path
from typing import Any


def enter(spec: dict[str, Any]) -> None:
    """Make this process part of the cluster: its libraries, its file systems, its limits."""
    import guard
    import mounts

    sys.path[:] = [p for p in sys.path if p != str(Path(__file__).parent)]
    sys.path[:0] = spec["paths"]
    sys.path.append(spec["site"])
    mounts.install(dbfs=spec["dbfs"], volumes=spec["volumes"])
    guard.install(forbidden=spec["forbidden"], allowed=spec["allowed"])


def _die_with_parent() -> None:
    """End the whole group when the stand-in is gone: its end of the pipe closes, however it dies."""
    pipe = os.dup(0)
    os.set_inheritable(pipe, False)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)

    def watch() -> None:
        os.read(pipe, 1)
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, daemon=True, name="standin-watch").start()


def _call(spec: dict[str, Any]) -> None:
    if "main" in spec:
        sys.argv = [spec["main"], *spec["parameters"]]
        runpy.run_path(spec["main"], init_globals=spec["globals"], run_name="__main__")
        return
    package, name = spec["entry_point"]
    sys.argv = [name, *spec["parameters"]]
    points = [p for p in metadata.distribution(package).entry_points if p.name == name]
    if points:
        points[0].load()()
    else:
        # Without an entry point of that name, Databricks calls `package.name()`.
        getattr(__import__(package), name)()


def main() -> None:
    """Run the task and say how it ended."""
    _die_with_parent()
    sys.path.insert(0, str(Path(__file__).parent))
    spec = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    import fake_runtime
    import session

    enter(spec)
    session.install(spec)
    spec["globals"] = fake_runtime.install(spec)
    result: dict[str, Any] = {"ended": True}
    code = 0
    try:
        _call(spec)
    except SystemExit as error:
        # Databricks takes any exit status other than 0 for a failure, named like an exception.
        if error.code not in (None, 0):
            result, code = {"error": f"SystemExit: {error.code}", "trace": traceback.format_exc()}, 1
    except BaseException as error:  # noqa: BLE001 - whatever it is, the run tells it
        traceback.print_exc()
        text = str(error)
        result = {"error": f"{type(error).__name__}: {text}", "trace": traceback.format_exc()}
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    Path(spec["result"]).write_text(json.dumps(result), encoding="utf-8")
    session.stop()
    # Not sys.exit: threads that the task left behind must not keep the run alive, as on a cluster.
    os._exit(code)


if __name__ == "__main__":
    main()
