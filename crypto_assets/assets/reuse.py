"""Rows of a slice that need no computing: everything they follow from is as it was when they were committed.

A refresh a minute finds the closed 5-minute bars changed once in five times, and features follow from those alone. The
commit of a slice records a digest of all that its rows follow from: the values read, the code, what else the step was
given. While the newest commit of the table is of the same slice and has the same digest, its rows would come out again.

Belongs here: that comparison. Does not belong here: what rows follow from (the step), or which partitions a run makes
(`orchestration.unchanged`).
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from crypto_assets.contracts.model import Table
from crypto_assets.contracts.slices import Slice
from crypto_assets.engine.base import Engine, StepInputs

if TYPE_CHECKING:
    import pyarrow as pa

CODE = "code_version"
"""Step parameter with the version of the code; without it nothing is reused."""
DIGEST = "inputs_digest"
"""Commit metadata with the digest."""


def digest(read: pa.Table, inputs: StepInputs, *given: Any) -> str | None:
    """Digest of all that the rows of a slice follow from; None if the version of the code is unknown.

    Args:
        read: Rows that were read, in an order that depends on their values alone.
        inputs: The step's inputs.
        given: What else the rows follow from, as JSON.
    """
    import pyarrow as pa

    if CODE not in inputs.params:
        return None
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, read.schema) as stream:
        stream.write_table(read.combine_chunks())
    found = hashlib.sha256(json.dumps([inputs.params[CODE], *given], default=str, sort_keys=True).encode())
    found.update(sink.getvalue())
    return found.hexdigest()


def stored(engine: Engine, table: Table, slice_: Slice, of: str | None, inputs: StepInputs) -> pa.Table | None:
    """The rows that the table holds for a slice, if its newest commit wrote them from inputs with this digest.

    None otherwise, for a rebuild, and where two small queries cost more than computing the rows.
    """
    name, version = table.full_name, engine.store.version(table.full_name)
    if of is None or version is None or inputs.rebuild or not engine.store.answers_at_once:
        return None
    wanted = {DIGEST: of, "slice_start": slice_.start.isoformat(), "slice_end": slice_.end.isoformat()}
    newest = engine.store.commits_after(name, version - 1, 1)
    if not newest or newest[0].version != version or wanted.items() - newest[0].metadata.items():
        return None
    return engine.store.read_arrow(name, slice_, version=version)
