"""The lines of the README for a notebook work on a home, and end without an error of a library."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from crypto_assets_tests.serving.home import served_home

pytestmark = pytest.mark.engine("local")
README = Path(__file__).parents[2] / "README.md"


def parts() -> dict[str, str]:
    """The code by the library that it shows."""
    (code,) = re.findall(r"^```python\n(.*?)^```", README.read_text(encoding="utf-8"), flags=re.M | re.S)
    duck, _, polars = code.partition("import polars")
    return {"duckdb": duck, "polars": f"import polars{polars}"}


@pytest.mark.parametrize("library", ["duckdb", "polars"])
def test_the_lines_of_the_readme_read_a_home(library: str, tmp_path: Path):
    if find_spec(library) is None:
        pytest.skip(f"{library} is not installed: it is no dependency of the product")
    served_home(tmp_path / ".crypto_assets" / "demo-replay")
    *lines, last = parts()[library].strip().splitlines()
    shown = last if last.endswith(".show()") else f"print({last})"
    code = "\n".join([*lines, shown])
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "bitcoin" in done.stdout
    assert "ethereum" not in done.stdout
