"""JSON messages between the driver and a step that runs by Pipes: the order and the answer.

Belongs here: both formats and their parsing, pure. Does not belong here: sending them (`pipes`, `pipes_main`), Dagster.
Types that JSON lacks are tagged, so that the driver reports exactly what a local step would have reported.
"""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from crypto_assets.engine.base import (
    CheckOutcome,
    Markdown,
    NotEnoughData,
    PartitionResult,
    Result,
    StepFailed,
    TableResult,
)
from crypto_assets.storage.base import AuditFailed, SliceRefused, StorageError

TAG = "$"
"""Only key of an object that represents a value JSON lacks: `{"$": [kind, content]}`."""
EXPECTED = (AuditFailed, StepFailed, SliceRefused, StorageError, NotEnoughData)
"""Step exceptions that the driver re-raises with their type; anything else is a crash."""


class WireError(Exception):
    """A value cannot be sent, or a message arrived damaged; names what."""


@dataclass(frozen=True)
class Order:
    """Order for a remote step.

    Args:
        work: Address of the step's function, `module:name`.
        shipment: JSON of `engine.inputs.Shipment`: partition keys and inputs.
        arguments: Further keyword arguments of the function (`tables` of a subset).
        environment: Settings that travel in clear, by environment name.
        secrets: `{name, scope, key}` of each secret, read remotely; never a value.
    """

    work: str
    shipment: str
    arguments: Mapping[str, Sequence[str]] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    secrets: Sequence[Mapping[str, str]] = ()

    def to_extras(self) -> dict[str, Any]:
        """The order as Pipes' extras."""
        return asdict(self)

    @classmethod
    def from_extras(cls, extras: Mapping[str, Any]) -> Order:
        """Rebuild from `to_extras`."""
        return cls(**{name: extras[name] for name in cls.__dataclass_fields__})


@dataclass(frozen=True)
class Crashed:
    """An exception that no step raises on purpose.

    Args:
        kind: Class of the exception.
        message: Its text, redacted.
        trace: End of its traceback, redacted.
    """

    kind: str
    message: str
    trace: str


def address_of(work: Callable[..., Result]) -> str:
    """`module:name` of a step's function.

    Raises:
        WireError: It cannot be imported under a name: a lambda, a partial, a function within a function.
    """
    module, name = getattr(work, "__module__", None), getattr(work, "__qualname__", None)
    if module and name and getattr(importlib.import_module(module), name, None) is work:
        return f"{module}:{name}"
    raise WireError(f"{work!r} cannot be found by its name on another machine; make it a function of a module")


def work_at(address: str) -> Callable[..., Result]:
    """The function at an address."""
    module, _, name = address.partition(":")
    return getattr(importlib.import_module(module), name)


def result_to_json(result: Result) -> str:
    """JSON of a step's result.

    Raises:
        WireError: A metadata value is of a type that is not sent; names it.
    """
    tables = {
        name: {
            "partitions": [[key, _partition(name, done)] for key, done in table.partitions.items()],
            "metadata": _values(f"{name} metadata", table.metadata),
        }
        for name, table in result.tables.items()
    }
    skipped = {name: [_outcome(name, o) for o in outcomes] for name, outcomes in result.skipped.items()}
    return json.dumps({"tables": tables, "skipped": skipped}, separators=(",", ":"))


def result_from_json(text: str) -> Result:
    """Rebuild from `result_to_json`."""
    raw = json.loads(text)
    tables = {
        name: TableResult(
            {
                key: PartitionResult(
                    done["rows"], done["data_version"], _plain(done["metadata"]), [_check(c) for c in done["checks"]]
                )
                for key, done in table["partitions"]
            },
            _plain(table["metadata"]),
        )
        for name, table in raw["tables"].items()
    }
    return Result(tables, {name: [_check(c) for c in outcomes] for name, outcomes in raw["skipped"].items()})


def failure_to_json(error: BaseException, shown: Callable[[str], str], trace: str = "") -> str:
    """JSON of an exception that a step raised.

    Args:
        error: The exception.
        shown: Redacts and cuts a text.
        trace: Its traceback as text, kept for a crash only.
    """
    kind = next((k.__name__ for k in EXPECTED if isinstance(error, k)), None)
    raw: dict[str, Any] = {"kind": kind, "type": type(error).__name__, "message": shown(str(error))}
    if isinstance(error, AuditFailed):
        raw["outcomes"] = [[key, _outcome(str(key), o)] for key, o in error.outcomes]  # type: ignore[misc]
    if isinstance(error, NotEnoughData):
        raw["metadata"] = _values("metadata", error.metadata)
    if kind is None:
        raw["trace"] = shown(trace)
    # Outcomes and metadata may quote what the message quotes.
    return json.dumps(_each_text(raw, shown), separators=(",", ":"))


def failure_from_json(text: str) -> Exception | Crashed:
    """Exception of a step: one of `EXPECTED` to re-raise, or `Crashed`."""
    raw = json.loads(text)
    message = raw["message"]
    if raw["kind"] == "AuditFailed":
        return AuditFailed(message, [(key, _check(c)) for key, c in raw["outcomes"]])
    if raw["kind"] == "NotEnoughData":
        return NotEnoughData(message, _plain(raw["metadata"]))
    if raw["kind"] is None:
        return Crashed(raw["type"], message, raw["trace"])
    return {k.__name__: k for k in EXPECTED}[raw["kind"]](message)


def sealed(kind: str, text: str) -> dict[str, str]:
    """A message with the checksum of its text."""
    return {"kind": kind, "text": text, "sha256": hashlib.sha256(text.encode()).hexdigest()}


def opened(message: Mapping[str, str]) -> str:
    """Text of a sealed message.

    Raises:
        WireError: It is not what was sent.
    """
    if hashlib.sha256(message["text"].encode()).hexdigest() != message["sha256"]:
        raise WireError(f"the {message['kind']} of the step arrived damaged ({len(message['text']):,} characters)")
    return message["text"]


def _partition(name: str, done: PartitionResult) -> dict[str, Any]:
    return {
        "rows": done.rows,
        "data_version": done.data_version,
        "metadata": _values(f"{name} metadata", done.metadata),
        "checks": [_outcome(name, outcome) for outcome in done.checks],
    }


def _outcome(name: str, outcome: CheckOutcome) -> dict[str, Any]:
    plain = {n: getattr(outcome, n) for n in ("name", "passed", "description", "severity")}
    return {**plain, "metadata": _values(f"{name} check {outcome.name}", outcome.metadata)}


def _check(raw: Mapping[str, Any]) -> CheckOutcome:
    return CheckOutcome(**{**raw, "metadata": _plain(raw["metadata"])})


def _values(where: str, values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _tagged(f"{where} {name}", value) for name, value in values.items()}


def _tagged(where: str, value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Markdown):
        return {TAG: ["markdown", value.text]}
    if isinstance(value, datetime):
        return {TAG: ["time", value.isoformat()]}
    if isinstance(value, Mapping):
        # As pairs: keys are not always texts, and one could be the tag itself.
        return {TAG: ["map", [[_tagged(where, k), _tagged(f"{where}.{k}", v)] for k, v in value.items()]]}
    if isinstance(value, (set, frozenset)):
        return {TAG: ["set", [_tagged(where, v) for v in sorted(value, key=str)]]}
    if isinstance(value, tuple):
        return {TAG: ["tuple", [_tagged(where, v) for v in value]]}
    if isinstance(value, list):
        return [_tagged(where, v) for v in value]
    raise WireError(f"{where} is a {type(value).__name__}, which is not sent to the driver")


def _untagged(value: Any) -> Any:
    if isinstance(value, list):
        return [_untagged(v) for v in value]
    if not isinstance(value, dict):
        return value
    kind, content = value[TAG]
    if kind == "markdown":
        return Markdown(content)
    if kind == "time":
        return datetime.fromisoformat(content)
    if kind == "map":
        return {_untagged(k): _untagged(v) for k, v in content}
    return {"set": set, "tuple": tuple}[kind](_untagged(v) for v in content)


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _untagged(value) for name, value in values.items()}


def _each_text(value: Any, shown: Callable[[str], str]) -> Any:
    """Apply `shown` to every text of a JSON value."""
    if isinstance(value, str):
        return shown(value)
    if isinstance(value, list):
        return [_each_text(v, shown) for v in value]
    return {k: _each_text(v, shown) for k, v in value.items()} if isinstance(value, dict) else value
