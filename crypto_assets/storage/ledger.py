"""Ledgers: tables that only grow, whose rows form hash chains, so that a rewritten or missing row shows.

A contract with `chain` columns names the rows that follow one another. Each row carries its number in its chain and the
hash of the row before, and the number and hash of the commit that wrote it. The commit's number is recorded as the
application transaction `ledger/<table>` of the Delta log, which outlives checkpoints and the clean-up of the log: with
it the newest rows cannot be taken away unseen either. `docs/decisions/0016-hash-chains.md` explains why, and what a
row's hash is of.

Belongs here: numbering and hashing rows before they are written. Does not belong here: reading the newest rows, or the
commit (`storage.store`), or walking a chain (`verify`).
"""

from __future__ import annotations

import hashlib
import struct
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from crypto_assets.contracts.arrow import ContractViolation, arrow_schema
from crypto_assets.contracts.model import Table
from crypto_assets.storage.delta_files import literal

if TYPE_CHECKING:
    import pyarrow as pa

DIGITS = 32
"""Hexadecimal digits kept of a SHA-256."""

FIRST = "0" * DIGITS
"""Stands for the previous hash in the first row of a chain."""

SEPARATOR = "\x1f"


def app_id(table: str) -> str:
    """App id of the transaction whose version is the number of the newest commit of rows."""
    return f"ledger/{table}"


def refuse_change(contract: Table, mode: str) -> None:
    """A ledger takes inserts only.

    Raises:
        ContractViolation: The mode would rewrite rows.
    """
    if contract.chain and mode != "insert_if_absent":
        raise ContractViolation(contract.full_name, [f"rows form a hash chain and are inserted only, not by {mode}"])


def rows_at(contract: Table, numbers: pa.Table) -> str:
    """Condition of the rows with these numbers in their chains.

    Args:
        contract: Contract with `chain` columns, which are text.
        numbers: Chain columns and chain_seq.
    """
    wanted = [
        " AND ".join([f"{n} = {literal(row[n])}" for n in contract.chain] + [f"chain_seq = {row['chain_seq']}"])
        for row in numbers.to_pylist()
    ]
    return " OR ".join(f"({condition})" for condition in wanted) or "false"


def linked(contract: Table, rows: pa.Table, newest: pa.Table, commit: int) -> pa.Table:
    """Rows with their places in the chains, in the order of their key.

    Args:
        contract: Contract with `chain` columns.
        rows: New rows; their chain columns are ignored.
        newest: The newest row of every chain, as stored on the snapshot that will be committed on.
        commit: Number of the commit, higher than every earlier one.
    """
    import pyarrow as pa

    heads: dict[tuple[Any, ...], tuple[int, str]] = defaultdict(lambda: (0, FIRST))
    for row, content in zip(newest.to_pylist(), hashes(contract, newest), strict=True):
        heads[tuple(row[n] for n in contract.chain)] = (row["chain_seq"], content)
    schema = arrow_schema(contract)
    ordered = rows.drop_columns(list(contract.chain_columns)).sort_by([(k, "ascending") for k in contract.key])
    texts = _texts(contract, ordered)
    chains = list(zip(*(ordered.column(n).to_pylist() for n in contract.chain), strict=True))
    numbers, before, contents = [], [], []
    for chain, text in zip(chains, texts, strict=True):
        seq, previous = heads[chain]
        places = [f"chain_seq={seq + 1}", f"chain_previous={previous}", f"chain_commit={commit}"]
        heads[chain] = (seq + 1, _digest(SEPARATOR.join([text, *places])))
        numbers.append(seq + 1)
        before.append(previous)
        contents.append(heads[chain][1])
    whole = _digest("".join(sorted(contents)))
    places = {"chain_seq": numbers, "chain_previous": before, "chain_commit": [commit] * len(numbers),
              "chain_commit_hash": [whole] * len(numbers)}  # fmt: skip
    for name, values in places.items():
        ordered = ordered.append_column(name, pa.array(values, schema.field(name).type))
    return ordered.select(schema.names).cast(schema)


def hashes(contract: Table, rows: pa.Table) -> list[str]:
    """Hash of each stored row: of its columns with a value, in the contract's order, places in the chain last."""
    places = ("chain_seq", "chain_previous", "chain_commit")
    ends = zip(*(rows.column(n).to_pylist() for n in places), strict=True)
    texts = _texts(contract, rows)
    return [
        _digest(SEPARATOR.join([text, *(f"{n}={v}" for n, v in zip(places, end, strict=True))]))
        for text, end in zip(texts, ends, strict=True)
    ]


def _texts(contract: Table, rows: pa.Table) -> list[str]:
    """`name=value` of every column with a value, chain columns aside; a later column changes no older row's text."""
    named = [c for c in contract.columns if c.name not in contract.chain_columns]
    columns = [_column(c.name, c.type, rows.column(c.name)) for c in named]
    return [SEPARATOR.join(part for part in parts if part) for parts in zip(*columns, strict=True)]


def _column(name: str, type_: str, column: pa.ChunkedArray) -> Sequence[str]:
    if type_ == "timestamp":  # microseconds since 1970
        values: list[Any] = column.cast("int64").to_pylist()
    elif type_ == "double":  # the 64 bits
        values = [None if v is None else format(struct.unpack(">Q", struct.pack(">d", v))[0], "064b")
                  for v in column.to_pylist()]  # fmt: skip
    elif type_ == "boolean":
        values = [None if v is None else str(v).lower() for v in column.to_pylist()]
    elif type_ in ("string", "bigint", "int", "date"):
        values = column.to_pylist()
    else:
        raise TypeError(f"a column of type {type_} has no text to hash: {name}")
    return ["" if v is None else f"{name}={v}" for v in values]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:DIGITS]
