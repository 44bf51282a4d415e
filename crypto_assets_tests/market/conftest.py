from __future__ import annotations

from hypothesis import settings

# The same examples in every run, whatever the machine's speed.
settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
settings.load_profile("repeatable")
