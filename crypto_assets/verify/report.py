"""What an audit found: one finding a law, and the same by table.

Belongs here: findings and how they are shown as rows. Does not belong here: how a law is judged.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Outcome = Literal["holds", "broken", "pending", "skipped"]
_SHOWN: dict[Outcome, str] = {"holds": "yes", "broken": "NO", "pending": "not yet", "skipped": "skipped"}


_ORDER: tuple[Outcome, ...] = ("broken", "pending", "holds", "skipped")
"""Order of what a reader sees first, and of what speaks for a table."""


@dataclass(frozen=True)
class Finding:
    """What came of one law.

    Args:
        law: Name of the check.
        says: What should hold.
        outcome: `holds`, `broken`, `pending` when what is there is right and more is on its way, or `skipped` when
            there was nothing to judge it by (`note` says what).
        checked: Things looked at.
        violations: Things that break the law.
        examples: At most ten of them.
        note: What a reader should know beside.
        tables: Tables whose columns the law judges.
        recomputed: What they were compared with.
    """

    law: str
    says: str
    outcome: Outcome
    checked: int = 0
    violations: int = 0
    examples: tuple[str, ...] = ()
    note: str = ""
    tables: tuple[str, ...] = ()
    recomputed: str = ""


@dataclass
class Report:
    """All findings; `counted` are rows by table and records by topic, `unread` says why a table was not judged."""

    findings: list[Finding] = field(default_factory=list)
    counted: dict[str, int] = field(default_factory=dict)
    unread: dict[str, str] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether no law is broken and every table that is there was read."""
        return not self.broken and not self.unread

    @property
    def broken(self) -> list[Finding]:
        """The laws that do not hold."""
        return [f for f in self.findings if f.outcome == "broken"]

    @property
    def pending(self) -> list[Finding]:
        """The laws that hold of what is stored, while more waits to be."""
        return [f for f in self.findings if f.outcome == "pending"]

    def rows(self) -> list[dict[str, Any]]:
        """One row a law, broken ones first, for a table of text."""
        return [
            {
                "holds": _SHOWN[f.outcome],
                "law": f.law,
                "checked": f.checked,
                "violations": f.violations,
                "what": "; ".join([*f.examples, *([f.note] if f.note else [])]) or f.says,
            }
            for f in sorted(self.findings, key=lambda f: min(_ORDER.index(f.outcome), 2))
        ]

    def tables(self, unjudged: Mapping[str, Mapping[str, str]]) -> list[dict[str, Any]]:
        """One row for every table that a law judges: rows, laws, what they compare with, and what no law judges.

        Args:
            unjudged: Reason by column by table.
        """
        found = []
        for table in sorted({t for f in self.findings for t in f.tables}):
            mine = [f for f in self.findings if table in f.tables]
            judged = [f for f in mine if f.outcome != "skipped"]
            found.append(
                {
                    "holds": _SHOWN[_worst(mine)],
                    "table": table,
                    "rows": self.counted.get(table),
                    "laws": ", ".join(f.law for f in judged),
                    "recomputed by": ", ".join(dict.fromkeys(f.recomputed for f in judged)),
                    "not judged": "; ".join(f"{c}: {why}" for c, why in unjudged.get(table, {}).items()),
                }
            )
        return sorted(found, key=lambda row: row["holds"] != "NO")


def _worst(found: Iterable[Finding]) -> Outcome:
    outcomes = {f.outcome for f in found}
    for outcome in _ORDER:
        if outcome in outcomes:
            return outcome
    return "skipped"
