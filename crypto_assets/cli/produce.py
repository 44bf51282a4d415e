"""`produce`: the producer's loop without Dagster."""

from __future__ import annotations

import re

from crypto_assets.cli import output
from crypto_assets.cli.signals import stop_requested
from crypto_assets.cli.up import running_broker
from crypto_assets.errors import UsageError
from crypto_assets.home import open_home
from crypto_assets.producer.loop import open_producer
from crypto_assets.settings import Settings

_UNITS = {"s": 1, "m": 60, "h": 3600}


def seconds(text: str) -> float:
    """`60s`, `10m`, `1h` in seconds.

    Raises:
        ValueError: The text is none of these.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text)
    if match is None:
        raise UsageError(f"{text!r} is not a duration such as 60s, 10m or 1h")
    return float(match[1]) * _UNITS[match[2]]


def run(settings: Settings, *, once: bool, run_for: str | None, as_json: bool) -> int:
    """Poll and publish; 0 when the last poll was answered and delivered, else 1."""
    limit = seconds(run_for) if run_for else None
    open_home(settings)  # a home that cannot be used gets no broker
    with stop_requested() as stop, running_broker(settings), open_producer(settings) as producer:
        summary = producer.run(for_s=limit, once=once, stop_event=stop, report=None if as_json else output.say)
    if as_json:
        output.as_json(summary.to_record())
    else:
        output.say(summary.text)
    return 0 if summary.ok else 1
