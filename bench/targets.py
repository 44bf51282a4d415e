"""Goals as ratios, which hold on any machine: over an earlier revision, and over a reference of the same run."""

from __future__ import annotations

AGAINST: dict[tuple[str, str], float] = {
    ("refresh", "processor"): 0.5,
    ("refresh", "events"): 0.5,
    ("hours in one range run", "processor"): 0.6,
    ("Kafka to Bronze", "processor"): 0.62,
    ("Bronze to Silver", "processor"): 0.71,
    ("Silver to bars_5m", "processor"): 0.45,
    ("all stages", "memory"): 0.8,
    ("idle up", "memory"): 0.7,
    ("streaming, local", "p50 s"): 0.5,
    ("streaming, local", "p99 s"): 1.0,
}
"""Most that the cost of a figure may be, as a share of the base's; of figures of which one was set."""
OVER_REFERENCE = {"Bronze": 3.3, "Silver": 2.0, "Bars": 1.25}
"""Most that the processor time of a stage may be over its reference: the client alone, and tuned DuckDB."""
COMMANDS = {"status": 1.3}
"""Most that the processor time of a command may be over its imports; 1.5 of those that are not named."""
DEFINITIONS = 1.4
"""Most that `import crypto_assets.definitions` may take over `import dagster`."""
SECOND_DEMO = 0.3
"""Most that a demo may take in which nothing has changed, of the first."""
