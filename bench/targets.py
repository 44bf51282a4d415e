"""Goals as ratios, which hold on any machine: over an earlier revision, and over a reference of the same run."""

from __future__ import annotations

AGAINST: dict[tuple[str, str], float] = {
    ("refresh", "processor"): 0.5,
    ("refresh", "events"): 0.5,
    ("hours in one range run", "processor"): 0.7,
    ("Kafka to Bronze", "processor"): 0.65,
    ("Bronze to Silver", "processor"): 0.65,
    ("Silver to bars_5m", "processor"): 0.5,
}
"""Most that the cost of a figure may be, as a share of the base's; of figures of which one was set."""
OVER_REFERENCE = {"Bronze": 3.3, "Silver": 2.0, "Bars": 1.25}
"""Most that the processor time of a stage may be over its reference: the client alone, and tuned DuckDB."""
