"""Python workers of Spark: the same libraries and limits as the task that they work for."""

from __future__ import annotations

import json
import os
import runpy
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
given = json.loads(Path(os.environ["STANDIN_SPEC"]).read_text(encoding="utf-8"))
given["paths"] = [*given["paths"], *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]

from prelude import enter  # noqa: E402

enter(given)
if sys.argv[1:2] == ["-m"]:
    module = sys.argv[2]
    sys.argv = sys.argv[2:]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
else:
    sys.argv = sys.argv[1:]
    runpy.run_path(sys.argv[0], run_name="__main__")
