"""Redacts secrets from text that is shown, logged, stored or sent.

Belongs here: matching a secret in any encoding. Does not belong here: the list of secrets (`Settings.secrets`).
Redact before truncating: truncation may leave an unmatched prefix of a secret.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from urllib.parse import urlsplit

REDACTED = "**********"
SHORTEST_SECRET = 4
"""Shorter values would match in any text."""
SHORTEST_PATH = 8
"""Minimum length at which the path of a secret URL is redacted by itself; HTTP libraries print it in errors."""
PASSWORD = re.compile(r"(//[^/@\s:]*:)[^/@\s]+@")
"""Password in a URL, such as a proxy's."""


def redact(
    text: str,
    secrets: Mapping[str, str],
    *,
    mark: Callable[[str], str] = lambda _name: REDACTED,
    addresses: bool = True,
) -> str:
    r"""Replace every secret in a text.

    Secrets match verbatim and with any character escaped for JSON (`\u0041`), a URL (`%41`) or HTML (`&#65;`).

    Args:
        text: Any text, not truncated.
        secrets: Values by name.
        mark: Replacement for a secret, given its name.
        addresses: Also redact passwords in URLs, such as a proxy's.
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
    """Pattern that matches a character verbatim and in every supported escape."""
    code = ord(character)
    url = "".join(f"%{byte:02x}" for byte in character.encode(errors="surrogatepass"))
    units = character.encode("utf-16-be", errors="surrogatepass").hex()
    json = "".join(rf"\\u{units[i : i + 4]}" for i in range(0, len(units), 4))
    ways = [re.escape(character), f"(?i:{url})", f"(?i:{json})", f"(?i:&#(?:{code}|x0*{code:x});)"]
    if character in '"\\/':
        ways.insert(0, re.escape("\\" + character))
    return f"(?:{'|'.join(ways)})"
