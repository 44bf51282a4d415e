"""Rules on market data: their YAML form, and every problem of a file with its line and fix. Pure.

Belongs here: what a rule may say. Does not belong here: which rows satisfy it (`conditions`), when it fires
(`judgement`), where rule files lie and which rules are enabled (`market`).
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError

from crypto_assets.errors import UsageError

DEFAULTS = Path(__file__).parent / "default_rules.yaml"
IDENTITY = ("table", "when", "value", "for_", "cooldown")
"""Fields that decide when a rule fires: a back-test is valid as long as they stay the same."""
_DURATION = re.compile(r"(\d+)\s*([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_QUIET = re.compile(r"(\d{1,2}:\d{2})\s*-\s*(\d{1,2}:\d{2})(?:\s+(\S+))?")


class RulesError(UsageError):
    """A rules file cannot be used; the message lists every problem with its line and fix."""


@dataclass(frozen=True)
class QuietHours:
    """A daily span of local time in which nothing is sent; it may cross midnight."""

    start: time
    end: time
    zone: ZoneInfo

    def until(self, now: datetime) -> datetime | None:
        """End of the span that contains `now` (UTC); None outside it."""
        local = now.astimezone(self.zone)
        clock = local.time()
        crosses = self.start > self.end
        inside = clock >= self.start or clock < self.end if crosses else self.start <= clock < self.end
        if not inside:
            return None
        day = local.date() + timedelta(days=crosses and clock >= self.start)
        return datetime.combine(day, self.end, self.zone).astimezone(now.tzinfo)


def _duration(value: object) -> object:
    if isinstance(value, timedelta):
        return value
    match = _DURATION.fullmatch(str(value).strip())
    if match is None:
        raise ValueError("write a whole number with its unit: 30s, 15m, 2h or 1d")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


def _quiet_hours(value: object) -> object:
    if value is None or isinstance(value, QuietHours):
        return value
    match = _QUIET.fullmatch(str(value).strip())
    form = 'write "22:00-07:00 Europe/Berlin"; without a time zone it is UTC'
    if match is None:
        raise ValueError(form)
    try:
        start, end = (time.fromisoformat(text.zfill(5)) for text in (match[1], match[2]))
    except ValueError:
        raise ValueError(form) from None
    if start == end:
        raise ValueError("begin and end are the same: name a span, or use `enabled: false`")
    try:
        return QuietHours(start, end, ZoneInfo(match[3] or "UTC"))
    except (KeyError, ValueError, OSError):
        raise ValueError(f"{match[3]} is no time zone; {form}") from None


def short(duration: timedelta) -> str:
    """A duration as a rules file has it."""
    seconds = int(duration.total_seconds())
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds and seconds % size == 0:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


Duration = Annotated[timedelta, BeforeValidator(_duration)]
Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,39}$")]
Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class Rule(BaseModel):
    """One rule.

    Args:
        name: Name; snake_case.
        description: What it means, for whoever gets the alert.
        table: Table whose rows are judged.
        when: Boolean SQL expression over the table's columns; null is false.
        value: Numeric SQL expression, stored with the alert.
        show: Columns whose values the alert shows; those of `when` if there are none.
        for_: How long it must hold without interruption and without a missing slot before it fires. A rule with `for`
            is about a state, whose end is also sent; one without is about an event.
        cooldown: Least time between two alerts of a coin.
        group: Alerts of one group that fire in one slot are sent as one message.
        severity: error or warn.
        channels: Names of the channels; `webhook` is ALERT_WEBHOOK_URL.
        quiet_hours: Daily span in which nothing is sent; what fires in it is sent at its end.
        digest: Whether that is one message; otherwise one for each alert.
        budget: Most alerts per coin and day in a back-test with which the rule may be enabled.
        enabled: False switches the rule off whatever the home says.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    name: Name
    description: Text
    table: Text
    when: Text
    value: Text | None = None
    show: tuple[Text, ...] = ()
    for_: Duration = Field(timedelta(0), alias="for")
    cooldown: Duration = timedelta(0)
    group: Name | None = None
    severity: Literal["error", "warn"] = "warn"
    channels: tuple[Name, ...] = ("webhook",)
    quiet_hours: Annotated[QuietHours | None, BeforeValidator(_quiet_hours)] = None
    digest: bool = True
    budget: float = Field(1.0, gt=0, allow_inf_nan=False)
    enabled: bool = True

    @property
    def asset(self) -> str:
        """Asset key of its table."""
        return self.table.replace(".", "/")

    @property
    def content_hash(self) -> str:
        """Hash of what decides when it fires."""
        fields = [str(getattr(self, name)) for name in IDENTITY]
        return hashlib.sha256(json.dumps(fields).encode()).hexdigest()[:16]


KEYS = tuple(field.alias or name for name, field in Rule.model_fields.items())
Vet = Callable[[Rule], Sequence[str]]
"""Problems of a rule's table and expressions."""


@dataclass(frozen=True)
class _Problem:
    line: int
    text: str


def load(text: str, origin: str, vet: Vet) -> list[Rule]:
    """Rules of a YAML text.

    Args:
        text: `rules:` with a list of mappings.
        origin: Name of the file, for messages.
        vet: Finds what is wrong with a rule's table and expressions.

    Raises:
        RulesError: Lists every problem with its line and fix.
    """
    import yaml

    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise RulesError(f"{origin}:{line}: not YAML: {error.problem}") from None
    except yaml.YAMLError as error:
        raise RulesError(f"{origin}: not YAML: {error}".replace("\n", " ")) from None
    problems: list[_Problem] = []
    rules = list(_rules(root, vet, problems))
    if problems:
        raise RulesError("; ".join(f"{origin}:{p.line}: {p.text}" for p in sorted(problems, key=lambda p: p.line)))
    return rules


def _rules(root: Any, vet: Vet, problems: list[_Problem]) -> Iterator[Rule]:
    import yaml

    if root is None:
        return
    if isinstance(root, yaml.SequenceNode):
        problems.append(_Problem(_line(root), "the file is a list: begin it with a line `rules:`, and the list below"))
        return
    top = _entries(root, ("rules",), "the file", problems)
    listed = top.get("rules")
    if listed is None or (isinstance(listed, yaml.ScalarNode) and not listed.value):
        return
    if not isinstance(listed, yaml.SequenceNode):
        problems.append(_Problem(_line(listed), "rules is no list: begin each rule with `- name: ...`"))
        return
    lines: dict[str, int] = {}
    for node in listed.value:
        rule = _rule(node, vet, problems)
        if rule is None:
            continue
        if rule.name in lines:
            problems.append(
                _Problem(
                    _line(node), f"rule {rule.name}: there is one of this name in line {lines[rule.name]}; rename one"
                )
            )
        lines.setdefault(rule.name, _line(node))
        yield rule


def _rule(node: Any, vet: Vet, problems: list[_Problem]) -> Rule | None:
    """The rule of a node; None if it has problems, which are noted."""
    found: list[_Problem] = []
    entries = _entries(node, KEYS, "the rule", found)
    values = {key: _value(entry) for key, entry in entries.items()}
    label = f"rule {values['name']}" if isinstance(values.get("name"), str) else "a rule"
    rule = None
    try:
        rule = Rule.model_validate(values)
    except ValidationError as error:
        for fault in error.errors(include_url=False, include_context=False, include_input=False):
            key = str(fault["loc"][0]) if fault["loc"] else ""
            if fault["type"] != "extra_forbidden":  # noted with a suggestion above
                found.append(_Problem(_line(entries.get(key, node)), f"{key}: {_worded(key, fault)}"))
                values.pop(key, None)
    if {"table", "when"} <= values.keys():  # what else is wrong with the rule hides nothing of these
        sound = rule or Rule.model_validate({"name": "unnamed", "description": label, **values})
        found += [_Problem(_line(entries.get(text.partition(":")[0], node)), text) for text in vet(sound)]
    problems += [_Problem(p.line, f"{label}: {p.text}") for p in found]
    return None if found else rule


def _worded(key: str, fault: Mapping[str, Any]) -> str:
    if fault["type"] == "missing":
        return f"is missing; write `{key}: ...`"
    if fault["type"] == "string_pattern_mismatch":
        return "use lower-case letters, digits and _, beginning with a letter, at most 40"
    return str(fault["msg"]).removeprefix("Value error, ")


def _entries(node: Any, known: Sequence[str], what: str, problems: list[_Problem]) -> dict[str, Any]:
    """Nodes by key as written: YAML itself would read `on` as true. Unknown and repeated keys are noted."""
    import yaml

    if not isinstance(node, yaml.MappingNode):
        problems.append(_Problem(_line(node), f"{what} is no mapping: write `key: value` lines"))
        return {}
    found: dict[str, Any] = {}
    for key, value in node.value:
        name = str(key.value) if isinstance(key, yaml.ScalarNode) else "?"
        if name not in known:
            problems.append(_Problem(_line(key), f"unknown key {name}: {_meant(name, known)}"))
        elif name in found:
            problems.append(_Problem(_line(key), f"{name} occurs twice: remove one"))
        else:
            found[name] = value
    return found


def _meant(name: str, known: Sequence[str]) -> str:
    if name == "on" and "table" in known:
        return "write table (YAML reads on as true)"
    near = difflib.get_close_matches(name, known, 1)
    return f"write {near[0]}, or remove it" if near else f"remove it; known keys are {', '.join(known)}"


def _value(node: Any) -> Any:
    """Plain values; texts as written where YAML would make a number of them (`for: 1:30`), except for numbers."""
    import yaml

    if isinstance(node, yaml.SequenceNode):
        return [_value(item) for item in node.value]
    if isinstance(node, yaml.MappingNode):
        return {str(key.value): _value(value) for key, value in node.value}
    kind = node.tag.rpartition(":")[2]
    if kind == "null":
        return None
    if kind == "bool":
        return node.value.lower() in ("true", "yes", "on")
    return node.value


def _line(node: Any) -> int:
    return int(node.start_mark.line) + 1
