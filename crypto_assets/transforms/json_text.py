r"""Members of a JSON object as text, exact and identical on every engine.

Belongs here: which texts are JSON (RFC 8259), and the contents of their top-level members. Does not belong here: the
meaning of a member (`transforms.parse`).

Engines read JSON differently: bare numbers pass through a double on Spark, single quotes and raw control characters are
JSON there, and text after the object is ignored everywhere. So an engine's parser is trusted with only two things:
nesting, and the escapes within names and texts. Its input is not the record but the record's tokens, which are a
regular language, so that one pattern finds them, each consumed whole:

    {"a\u005fb": 1.50, "c": {"d": null}}   becomes   {"sa\u005fb": "n1.50", "sc": {"sd": "nnull"}}

Every text begins with `s`, every bare value with `n`: no digit is lost, and no kind is mistaken for another. Records in
our producer's layout need none of this: `plain` recognizes them by one pattern, and none of their members is nested,
repeated or has an escaped name.
"""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING

from crypto_assets.contracts.messages import MOST_CHARACTERS, MOST_NESTED, NUMERIC, REQUIRED

if TYPE_CHECKING:
    from pyspark.sql import Column

NUMBER = "-?[0-9]{1,20}([.][0-9]{1,18})?"
"""Numbers that a cast to decimal(38,18) reads exactly, whatever the engine."""

# Stand-ins while tokens are marked. Raw control characters are not JSON, so no readable record contains any.
_BACKSLASH, _QUOTE, _TEXT, _TEXT_END, _BARE, _BARE_END = (chr(code) for code in range(1, 7))
_CONTROL = r"[\x00-\x08\x0b\x0c\x0e-\x1f]"
_PIECE = r'"([^"]*)"|([^"{}\[\]:, \t\r\n]+)'
_SCALAR = "(-?(0|[1-9][0-9]*)([.][0-9]+)?([eE][+-]?[0-9]+)?|true|false|null)?"
_HEX = "[0-9a-fA-F]"
_ESCAPE = (
    rf"\\u[dD][89abAB]{_HEX}{{2}}\\u[dD][c-fC-F]{_HEX}{{2}}|\\u[0-9a-ce-fA-CE-F]{_HEX}{{3}}|\\u[dD][0-7]{_HEX}{{2}}"
    r"|\\[/bfnrt]"
)
"""Escapes except those of quotes and backslashes; surrogates only in pairs, since UTF-8 cannot hold one alone."""


def plain(text: Column) -> Column:
    """Whether a text is an object in our producer's layout: known fields in order, numbers as `NUMBER` in quotes.

    A backslash may precede only a quote or another backslash. Null for null.
    """
    from pyspark.sql import functions as F

    string = r'"[^"\\\x00-\x1f]*"'
    kinds = {"name": f"(null|{string})", "source_payload": f"(null|{string})"}
    kinds |= dict.fromkeys(NUMERIC, f'(null|"{NUMBER}")')

    def member(name: str) -> str:
        return f'"{name}":{kinds.get(name, string)}'

    fields = [
        *(f"{member(name)}," for name in REQUIRED[:2]),
        f"({member('name')},)?",
        *(f"{member(name)}," if name in REQUIRED else f"({member(name)},)?" for name in NUMERIC),
        *(f"{member(REQUIRED[-2])},", member(REQUIRED[-1]), f"(,{member('source_payload')})?"),
    ]
    shape = _replaced(text, ("\\\\", "-"), ('\\"', "-"))
    return (F.length(text) <= MOST_CHARACTERS) & shape.rlike(rf"^\{{{''.join(fields)}\}}\z")


def marked(text: Column) -> Column:
    """Mark the tokens of a text; null if one of them is no token of JSON, or limits are exceeded."""
    from pyspark.sql import functions as F

    # What follows a backslash belongs to it; pairs of backslashes go first, or the second would take the quote.
    masked = _replaced(text, ("\\\\", _BACKSLASH), ('\\"', _QUOTE))
    found = F.regexp_replace(masked, _PIECE, f"{_TEXT}$1{_TEXT_END}{_BARE}$2{_BARE_END}")
    bad_scalar = F.contains(F.regexp_replace(found, f"{_BARE}{_SCALAR}{_BARE_END}", ""), F.lit(_BARE))
    bad_text = found.rlike(rf'{_TEXT}[^{_TEXT_END}]*[\t\r\n]|"')
    bad_escape = F.contains(F.regexp_replace(masked, _ESCAPE, ""), F.lit("\\"))
    outside = F.regexp_replace(masked, '"[^"]*"', "")
    nested = F.length(outside) - F.length(F.translate(outside, "{[", ""))
    sound = ~(bad_scalar | bad_text | bad_escape) & (nested <= MOST_NESTED)
    return F.when((F.length(text) <= MOST_CHARACTERS) & ~text.rlike(_CONTROL), F.when(sound, found))


def tagged(marks: Column) -> Column:
    """Convert `marked` text to JSON in which every name and text is `s...` and every other scalar the text `n...`."""
    return _replaced(
        marks,
        (_TEXT_END + _BARE + _BARE_END, '"'),
        (_TEXT + _TEXT_END + _BARE, '"n'),
        (_BARE_END, '"'),
        (_TEXT, '"s'),
        (_BACKSLASH, "\\\\"),
        (_QUOTE, '\\"'),
    )


def is_one_value(tags: Column) -> Column:
    """Whether `tagged` text is one JSON value with nothing after it, by parsing it between two impossible names."""
    from pyspark.sql import functions as F

    between = F.concat(F.lit('{"x":'), tags, F.lit(',"y":0}'))
    return F.coalesce(F.concat_ws(",", F.json_object_keys(between)) == "x,y", F.lit(False))


def member(tags: Column, name: str) -> Column:
    """A top-level member of a `tagged` object: `s` and its text, `n` and its scalar as written, or `[...` or `{...`."""
    from pyspark.sql import functions as F

    return F.get_json_object(tags, f"$.s{name}")


def _replaced(text: Column, *pairs: tuple[str, str]) -> Column:
    from pyspark.sql import functions as F

    return reduce(lambda column, pair: F.replace(column, F.lit(pair[0]), F.lit(pair[1])), pairs, text)
