"""Records as a hostile or careless producer might write them: seeded mutations of good messages.

One generator for whatever reads messages: rows of polls, Silver and the audit, on every engine. Equal arguments give
equal records.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Members = list[tuple[str, str]]
"""Members of an object as (name, value), both as JSON text, so that names may repeat and values may be no JSON."""

NUMBERS = (
    "0", "-0", "-0.0", "0e0", "0e999", "12782.6", "1e0", "1.5E+3", "1.0e00000000003", "1e-00018", "1e999", "-1e999",
    "1e20", "1e31", "9.99e19", "99999999999999999999.9999999999999999995", "999999999999999.9999999999999999999",
    "0.0000000000000000005", "0.00000000000000000049", "1e-61", "1e60", "1e9999999999999999999", "1." + "3" * 1201,
    "1" * 401, "7" * 5000, "0." + "0" * 400 + "1", "123456789012345.123456789012345678", "-3.25", "2147483648",
    "9223372036854775808", "1" + "0" * 25, "100.10",
)  # fmt: skip
"""Numbers of JSON."""

NO_NUMBERS = (
    "+1", "01", "-01", ".5", "5.", "1.e3", "1e", "1e+", "0x10", "1_000", "1,000", "NaN", "Infinity", "-Infinity",
    "--1", "1 2", "\u0661\u0662", "1\u00a0", "tru", "nul", "'x'", "undefined", "1f", "1d",
)  # fmt: skip
"""Texts that some reader or other takes for a number, and JSON does not."""

TEXTS = (
    '""', '" "', '"bitcoin"', '"BTC"', '"\\ud800"', '"x\\udc00"', '"\\udc00\\ud800"', '"\\ud83d\\ude00"', '"\u20bf"',
    '"\\u0000"', '"a\\u0000b"', '"a\\nb"', '"\\/\\b\\f\\r\\t\\\\\\""', '"\\x41"', '"\\u12"', '"\\u00ZZ"', '"a\tb"',
    '"a\nb"', '"a\x00b"', '"a\x7fb"', '"\u00a0100.5"', '"100.5 "', '"[x]"', '"{"', '"[1, 2]"', '"null"', '"true"',
    '"\\u0031.5"', '"\\u002d1"', '"\u0661"', '"it\'s"', '"' + "x" * 5000 + '"', '"\\"price_usd\\":77.7"', '"\ufeffx"',
    '"\\ud83d\\\\ude00"', '"\\\\ud800"', '"\u2028"', '"a", "zz": "b', '"007"', '"1\\n"',
)  # fmt: skip

OTHERS = (
    "true", "false", "null", "[]", "{}", "[1]", '["x", "y\\ud800"]', '{"price_usd":77.7}', "[[[1]]]", "[1,]",
    '{"a":1,}',
    '{"a" 1}', "{1:2}", '{"a":{"last_updated_at":"2024-05-01T09:00:00.000Z"}}', "[" * 10 + "]" * 10,
    "[" * 300 + "]" * 300, '{"a":' * 300 + "1" + "}" * 300, "[" * 100_000, '[{"a":"]"},"}",1e5,-0.0,null]',
    "[" * 62 + "1" + "]" * 62, "[" * 63 + "1" + "]" * 63, "[" * 64 + "]" * 64, "[}", "[1 2]", '["a""b"]',
)  # fmt: skip

CLOCK = (
    "T24:00:00Z", "T23:59:60Z", "T23:59:59.999999999Z", "T23:59:59.9999999999Z", "t10:00:30z", " 10:00:30Z",
    "T10:00:30+05:30", "T10:00:30-00:00", "T10:00:30+18:00", "T10:00:30+18:01", "T10:00:30+24:00", "T10:00:30+05:60",
    "T10:00:30", "T10:00Z", "T10:00:30.Z", "T10:00:30,5Z", "T10:00:30.1234567Z", "T10:00:30 Z", "T10:00:30Z\\n",
    "T10:60:00Z", "T1:00:00Z", "T10:00:30.000Z[UTC]", "T10:00:30 UTC", "T10:00:30.123456Z", "T10:00:30+0530", "",
)  # fmt: skip
DATES = (
    "2024-05-01", "2024-02-29", "2023-02-29", "2024-02-30", "2024-04-31", "2024-00-10", "2024-13-01", "0000-01-01",
    "0001-01-01", "1899-12-31", "1900-01-01", "1969-12-31", "9999-12-31", "10000-01-01", "+2024-05-01", "-2024-05-01",
    "2024-5-1", "02024-05-01", "20240501", "\u0662\u0660\u0662\u0664-05-01", "2024-W18-3", "2024-05-32",
)  # fmt: skip
SPACE = ("", " ", "\n", "\r\n", "\t", "  ", "\u00a0", "\x0b", "\u2003", "/**/")


def mutated(messages: Sequence[Mapping[str, Any]], count: int, seed: int) -> Iterator[bytes]:
    """`count` records, each one of the messages with up to three mutations; about one in ten is left as it was.

    Args:
        messages: Good messages.
        count: How many records.
        seed: Seed of all choices.
    """
    chance = random.Random(seed)
    for _ in range(count):
        message = chance.choice(messages)
        members = [(json.dumps(name), json.dumps(value, ensure_ascii=False)) for name, value in message.items()]
        for _ in range(chance.choice((0, 1, 1, 1, 1, 1, 1, 2, 2, 3))):
            members = chance.choice(_MUTATIONS)(members, chance)
        text = _written(members, chance)
        yield _spoilt(text, chance) if chance.random() < 0.08 else text.encode("utf-8", "surrogatepass")


def value_text(chance: random.Random) -> str:
    """A value as JSON text, or as what resembles it."""
    kind = chance.randrange(6)
    if kind == 0:
        return json.dumps(chance.choice(DATES[:4] + DATES) + chance.choice(CLOCK)).replace("\\\\n", "\\n")
    if kind == 1:
        return json.dumps(chance.choice(NUMBERS + NO_NUMBERS), ensure_ascii=chance.random() < 0.5)
    return chance.choice((NUMBERS, NUMBERS, NO_NUMBERS, TEXTS, OTHERS)[kind - 1])


def _another_value(members: Members, chance: random.Random) -> Members:
    place = chance.randrange(len(members))
    return [*members[:place], (members[place][0], value_text(chance)), *members[place + 1 :]]


def _another_time(members: Members, chance: random.Random) -> Members:
    places = [i for i, (name, _) in enumerate(members) if name.endswith(('_at"', 'timestamp"'))]
    place = chance.choice(places or [0])
    day, clock = chance.choice(DATES[:2] + DATES), chance.choice(CLOCK)
    return [*members[:place], (members[place][0], f'"{day}{clock}"'), *members[place + 1 :]]


def _escaped_name(members: Members, chance: random.Random) -> Members:
    """A letter of a name as the escape that says the same."""
    place = chance.choice([i for i, (name, _) in enumerate(members) if len(name) > 2])
    name, value = members[place]
    at = chance.randrange(1, len(name) - 1)
    digits = f"{ord(name[at]):04x}"
    spelt = f"{name[:at]}\\u{chance.choice((digits, digits.upper()))}{name[at + 1 :]}"
    return [*members[:place], (spelt, value), *members[place + 1 :]]


def _nested_twin(members: Members, chance: random.Random) -> Members:
    """An unknown member that holds a known name, as an object, a list or a text."""
    name, _ = chance.choice(members)
    inner = "{" + f"{name}:{value_text(chance)}" + "}"
    value = chance.choice((inner, f"[{inner}]", json.dumps(inner), '{"a":' + inner + "}"))
    return _put(members, (chance.choice(('"zz"', '""', '"1"', '"a.b"', '"\\ud800"', '"\\u0000"')), value), chance)


def _repeated(members: Members, chance: random.Random) -> Members:
    name, value = chance.choice(members)
    return _put(members, (name, chance.choice((value, value_text(chance)))), chance)


def _left_out(members: Members, chance: random.Random) -> Members:
    place = chance.randrange(len(members))
    return members[:place] + members[place + 1 :] or members


def _unknown(members: Members, chance: random.Random) -> Members:
    return _put(
        members, (chance.choice(('"7"', '"$"', '"\\"q"', '"it\'s"', "'x'", "7", "null")), value_text(chance)), chance
    )


def _shuffled(members: Members, chance: random.Random) -> Members:
    return chance.sample(members, len(members))


def _bare(members: Members, chance: random.Random) -> Members:
    """A number in quotes as a number, or the other way round."""
    place = chance.randrange(len(members))
    name, value = members[place]
    other = value[1:-1] if value.startswith('"') and value[1:2].isdigit() else json.dumps(value)
    return [*members[:place], (name, other), *members[place + 1 :]]


_MUTATIONS = (
    *(_another_value,) * 6,
    *(_another_time,) * 2,
    *(_escaped_name,) * 2,
    *(_nested_twin,) * 2,
    _repeated,
    _left_out,
    _unknown,
    _shuffled,
    _bare,
)


def _put(members: Members, member: tuple[str, str], chance: random.Random) -> Members:
    place = chance.randrange(len(members) + 1)
    return [*members[:place], member, *members[place:]]


def _written(members: Members, chance: random.Random) -> str:
    if chance.random() < 0.6:
        return "{" + ",".join(f"{name}:{value}" for name, value in members) + "}"

    def gap() -> str:
        return chance.choice(SPACE[:6]) if chance.random() < 0.97 else chance.choice(SPACE)

    inner = ",".join(f"{gap()}{name}{gap()}:{gap()}{value}{gap()}" for name, value in members)
    return f"{gap()}{{{inner}}}{gap()}"


def _spoilt(text: str, chance: random.Random) -> bytes:
    """The record damaged as a whole."""
    raw = text.encode("utf-8", "surrogatepass")
    place = chance.randrange(len(raw))
    return chance.choice(
        (
            b"", b"null", b"7", b'"x"', b"[]", b"[" + raw + b"]", raw + raw, raw + b" x", raw + b",", raw + b"\x00",
            raw[:place], raw[:place] + bytes([chance.randrange(256)]) + raw[place + 1 :], b"\xef\xbb\xbf" + raw,
            raw[:place] + raw[place + 1 :], b"\xff\xfe" + raw, raw + b"\xed\xa0\x80", b"\x00" + raw,
            text.encode("utf-16"), b"\xc2\xa0" + raw, raw + b"\xe2\x80\xa8", raw + b"\r\n", raw + b"//",
        )
    )  # fmt: skip
