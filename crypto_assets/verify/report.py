"""Findings of an audit: one per law, and the same by table.

Belongs here: findings and their form as rows. Does not belong here: how a law is judged.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Outcome = Literal["holds", "broken", "pending", "skipped"]
_SHOWN: dict[Outcome, str] = {"holds": "yes", "broken": "NO", "pending": "not yet", "skipped": "skipped"}


_ORDER: tuple[Outcome, ...] = ("broken", "pending", "holds", "skipped")
"""Order of outcomes: what a reader sees first, and what represents a table."""


@dataclass(frozen=True)
class Finding:
    """Outcome of one law.

    Args:
        law: Name of the check.
        statement: What should hold.
        outcome: `holds`, `broken`, `pending` when the stored data is right and more is on its way, or `skipped` without
            data to judge it by (named in `note`).
        checked: Number of things checked.
        violations: Number of things that break the law.
        examples: At most ten of them.
        note: Additional information for readers.
        tables: Tables whose columns the law judges.
        recomputed: Source of the comparison.
    """

    law: str
    statement: str
    outcome: Outcome
    checked: int = 0
    violations: int = 0
    examples: tuple[str, ...] = ()
    note: str = ""
    tables: tuple[str, ...] = ()
    recomputed: str = ""


@dataclass
class Report:
    """All findings; `counted` are rows by table and records by topic, `unread` the reasons for unjudged tables."""

    findings: list[Finding] = field(default_factory=list)
    counted: dict[str, int] = field(default_factory=dict)
    unread: dict[str, str] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether no law is broken and every existing table was read."""
        return not self.broken and not self.unread

    @property
    def broken(self) -> list[Finding]:
        """The broken laws."""
        return [f for f in self.findings if f.outcome == "broken"]

    @property
    def pending(self) -> list[Finding]:
        """Laws that hold for what is stored, while more is waiting."""
        return [f for f in self.findings if f.outcome == "pending"]

    def rows(self) -> list[dict[str, Any]]:
        """One row per law, broken ones first, for a text table."""
        return [
            {
                "holds": _SHOWN[f.outcome],
                "law": f.law,
                "checked": f.checked,
                "violations": f.violations,
                "what": "; ".join([*f.examples, *([f.note] if f.note else [])]) or f.statement,
            }
            for f in sorted(self.findings, key=lambda f: min(_ORDER.index(f.outcome), 2))
        ]

    def tables(self, unjudged: Mapping[str, Mapping[str, str]]) -> list[dict[str, Any]]:
        """One row per judged table: rows, laws, sources of comparison, and columns without a law.

        Args:
            unjudged: Reason by column by table.
        """
        found = []
        for table in sorted({t for f in self.findings for t in f.tables}):
            mine = [f for f in self.findings if table in f.tables]
            judged = [f for f in mine if f.outcome != "skipped"]
            outcomes: set[Outcome] = {f.outcome for f in mine}
            found.append(
                {
                    "holds": _SHOWN[min(outcomes, key=_ORDER.index)],
                    "table": table,
                    "rows": self.counted.get(table),
                    "laws": ", ".join(f.law for f in judged),
                    "recomputed by": ", ".join(dict.fromkeys(f.recomputed for f in judged)),
                    "not judged": "; ".join(f"{c}: {why}" for c, why in unjudged.get(table, {}).items()),
                }
            )
        return sorted(found, key=lambda row: row["holds"] != "NO")
