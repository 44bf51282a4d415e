"""Secrets out of texts that are shown, logged, stored or sent.

Belongs here: finding a secret however it is written. Does not belong here: which secrets there are
(`Settings.secrets`). Redact first and cut afterwards: of a text that was cut the start of a secret may be left.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from urllib.parse import urlsplit

REDACTED = "**********"
SHORTEST_SECRET = 4
"""Shorter values would be found in every text."""
SHORTEST_PATH = 8
"""Of an address that is secret, its path alone is one too, as errors of HTTP libraries show it, if it is that long."""
PASSWORD = re.compile(r"(//[^/@\s:]*:)[^/@\s]+@")
"""Where an address holds one, such as a proxy's."""


def redact(
    text: str,
    secrets: Mapping[str, str],
    *,
    mark: Callable[[str], str] = lambda _name: REDACTED,
    addresses: bool = True,
) -> str:
    r"""The text without any secret.

    A secret is found as it is and with any of its characters written for JSON (`\u0041`), a URL (`%41`) or HTML
    (`&#65;`).

    Args:
        text: Any text, not cut.
        secrets: Values by name.
        mark: What stands for a secret, by its name.
        addresses: Whether the password of every address, such as a proxy's, is taken for a secret too.
    """
    for name, value in sorted(secrets.items(), key=lambda item: -len(item[1])):
        for pattern in _patterns(value):
            text = pattern.sub(lambda _found, name=name: mark(name), text)
    return PASSWORD.sub(r"\1***@", text) if addresses else text


@lru_cache(maxsize=64)
def _patterns(value: str) -> tuple[re.Pattern[str], ...]:
    parts = [value]
    if value.startswith(("http://", "https://")):
        at = urlsplit(value)
        parts.append(at.path + (f"?{at.query}" if at.query else ""))
        parts = [p for p in parts if p == value or len(p) >= SHORTEST_PATH]
    return tuple(re.compile("".join(map(_written, part))) for part in parts if len(part) >= SHORTEST_SECRET)


def _written(character: str) -> str:
    """Pattern of a character in all the ways in which it may be written."""
    code = ord(character)
    url = "".join(f"%{byte:02x}" for byte in character.encode(errors="surrogatepass"))
    units = character.encode("utf-16-be", errors="surrogatepass").hex()
    json = "".join(rf"\\u{units[i : i + 4]}" for i in range(0, len(units), 4))
    ways = [re.escape(character), f"(?i:{url})", f"(?i:{json})", f"(?i:&#(?:{code}|x0*{code:x});)"]
    if character in '"\\/':
        ways.insert(0, re.escape("\\" + character))
    return f"(?:{'|'.join(ways)})"
