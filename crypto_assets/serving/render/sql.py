"""Queries of the catalogue as SQL files, for the SQL editor of a workspace, and their SQL with parameters replaced.

Belongs here: literals, headers. Does not belong here: queries (`serving.queries`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from crypto_assets.contracts.render import literal, quoted
from crypto_assets.serving.queries import CATALOGUE
from crypto_assets.serving.query import Query, filled
from crypto_assets.settings import Settings

FOLDER = "deploy/databricks/sql/queries"
PRESENT = {"now": "now()"}
"""SQL by parameter where a workspace's default differs from the catalogue's: its data are live, so that ages count to
the present. To the newest quote, data that stand still would look new."""
CATALOG = str(Settings.model_fields["catalog"].default)


def value(given: object) -> str:
    """A parameter's value as SQL of Spark and DuckDB.

    Raises:
        TypeError: It is no text, number or None.
    """
    if given is None:
        return "NULL"
    if isinstance(given, str):
        return literal(given)
    if isinstance(given, float):
        return f"CAST('{given!r}' AS DOUBLE)"
    if isinstance(given, int) and not isinstance(given, bool):
        return str(given)
    raise TypeError(f"{type(given).__name__} is no type of a parameter's default")


def defaults(query: Query) -> dict[str, str]:
    """SQL of every parameter's default in a workspace."""
    return {p.name: PRESENT.get(p.name, value(p.default)) for p in query.parameters}


def with_parameters(query: Query, texts: Mapping[str, str]) -> str:
    """SQL of a query with a text in place of each parameter: the given one, else its default.

    Raises:
        KeyError: A text is given for a parameter that the query does not have.
    """
    own = defaults(query)
    if unknown := texts.keys() - own.keys():
        raise KeyError(f"query {query.name} has no parameter {', '.join(sorted(unknown))}")
    return filled(query.sql.strip(), {**own, **texts})


def text(query: Query) -> str:
    """One file: the query at its defaults, in the default catalog."""
    head = [f"-- {query.name}: {query.purpose}"]
    if query.parameters:
        head.append("-- Parameters stand at their defaults:")
    set_to = defaults(query)
    head += [f"--   {p.name} = {set_to[p.name]}: {p.description}" for p in query.parameters]
    head.append("-- Rendered from crypto_assets/serving/queries.py by `python -m crypto_assets.rendered_files`.")
    return "\n".join(head) + f"\n\nUSE CATALOG {quoted(CATALOG)};\n\n{with_parameters(query, {})};\n"


def files() -> dict[str, Callable[[], str]]:
    """Rendered files by path within a checkout."""
    return {f"{FOLDER}/{query.name}.sql": (lambda query=query: text(query)) for query in CATALOGUE.values()}
