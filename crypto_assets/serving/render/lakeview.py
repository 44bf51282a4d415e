"""The boards of the page as an AI/BI dashboard (`.lvdash.json`): classes of boards and their JSON.

Parameters of a query become parameters of its dataset, all of them text, which the SQL converts: the only type of
parameter that public dashboards show. `coin` has the value "All" for null; parameters that no board asks for stay at
their defaults (`sql.defaults`). Tables are named `schema.table`: the bundle sets the catalog.

Belongs here: the format. Does not belong here: which boards there are (`boards`), queries (`serving.queries`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from crypto_assets.contracts.model import Column
from crypto_assets.serving.query import Parameter, Query
from crypto_assets.serving.render.sql import with_parameters

WIDTH = 6
"""Columns of the grid."""
FILTER_WIDTH, FILTER_HEIGHT = 1, 2
EVERY = "All"
"""Value of the parameter `coin` that means every coin."""
VERSIONS = {"table": 1, "counter": 2, "filter-single-select": 2, "bar": 3, "line": 3}
"""Version of a widget's specification, as public dashboards have it."""
CHOICES: Mapping[str, str] = {
    "coin": f"SELECT '{EVERY}' AS coin UNION ALL SELECT coin_id AS coin FROM gold.latest_prices ORDER BY coin",  # noqa: S608
    "hours": "SELECT hours FROM (VALUES ('6'), ('24'), ('72'), ('168'), ('720')) AS spans(hours)",
    "days": "SELECT days FROM (VALUES ('1'), ('7'), ('30'), ('90')) AS spans(days)",
    "horizon": "SELECT horizon FROM (VALUES ('5m'), ('1h')) AS horizons(horizon)",
}  # fmt: skip
"""Values that a filter offers, by parameter: SELECT of one column of its name."""
TITLES = {"coin": "Coin", "hours": "Hours", "days": "Days", "horizon": "Horizon"}

Kind = Literal["counter", "table", "bar", "line"]
_NUMBERS = ("decimal", "double", "bigint", "int")


@dataclass(frozen=True)
class Widget:
    """One widget.

    Args:
        kind: Table, counter, bar or line chart.
        title: What it shows.
        query: The query of the catalogue behind it.
        y: Column of a counter; columns of a chart's values; columns of a table (empty = all).
        x: Column of a chart's horizontal axis.
        color: Column of a chart that distinguishes its lines or bars.
        aggregate: SQL function over `y`, for counters of more than one row.
        width: Columns of the grid, of 6.
        height: Rows of the grid.
    """

    kind: Kind
    title: str
    query: Query
    y: tuple[str, ...] = ()
    x: str = ""
    color: str = ""
    aggregate: str = ""
    width: int = WIDTH
    height: int = 6

    @property
    def names(self) -> tuple[str, ...]:
        """Columns that it reads."""
        y = self.y or tuple(c.name for c in self.query.columns)
        return tuple(name for name in dict.fromkeys((self.x, *y, self.color)) if name)


@dataclass(frozen=True)
class Page:
    """One page.

    Args:
        name: snake_case.
        title: Shown on its tab.
        widgets: In reading order; they fill rows of the grid from the left.
        filters: Initial value by parameter that the page lets a reader choose.
        whole: Queries that filters leave alone.
    """

    name: str
    title: str
    widgets: tuple[Widget, ...]
    filters: Mapping[str, str] = field(default_factory=dict)
    whole: tuple[Query, ...] = ()

    @property
    def queries(self) -> list[Query]:
        """Queries of the page, each once."""
        return list({widget.query.name: widget.query for widget in self.widgets}.values())

    def chosen(self, query: Query) -> list[Parameter]:
        """Parameters of a query that the page lets a reader choose."""
        return [] if query in self.whole else [p for p in query.parameters if p.name in self.filters]


def document(pages: Sequence[Page]) -> dict[str, Any]:
    """The dashboard as JSON-safe values.

    Raises:
        ValueError: A query is on two pages, whose filters would contradict each other, or a widget does not fit.
    """
    offered = [name for name in CHOICES if any(name in page.filters for page in pages)]
    datasets = [_dataset(query, page) for page in pages for query in page.queries]
    names = [d["name"] for d in datasets]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"on more than one page: {', '.join(twice)}")
    datasets += [
        {"name": f"choices_{name}", "displayName": f"Choices: {TITLES[name]}", "queryLines": _lines(CHOICES[name])}
        for name in offered
    ]
    return {"datasets": datasets, "pages": [_page(page) for page in pages]}


def text(pages: Sequence[Page]) -> str:
    """The dashboard's file."""
    return json.dumps(document(pages), indent=2, ensure_ascii=False) + "\n"


def files(path: str, pages: Sequence[Page]) -> dict[str, Callable[[], str]]:
    """Rendered files by path within a checkout."""
    return {path: lambda: text(pages)}


def _dataset(query: Query, page: Page) -> dict[str, Any]:
    chosen = page.chosen(query)
    parameters = [
        {
            "displayName": TITLES[p.name],
            "keyword": p.name,
            "dataType": "STRING",
            "defaultSelection": {"values": {"dataType": "STRING", "values": [{"value": page.filters[p.name]}]}},
        }
        for p in chosen
    ]
    found: dict[str, Any] = {
        "name": query.name,
        "displayName": query.name,
        "queryLines": _lines(with_parameters(query, {p.name: _converted(p) for p in chosen})),
    }
    return {**found, "parameters": parameters} if parameters else found


def _converted(parameter: Parameter) -> str:
    """SQL that reads a parameter given as text."""
    if parameter.name == "coin":
        return f"nullif(:coin, '{EVERY}')"
    return f":{parameter.name}" if parameter.type == "string" else f"CAST(:{parameter.name} AS {parameter.type})"


def _lines(sql: str) -> list[str]:
    """Lines as the format has them: they are joined without a separator."""
    return sql.strip().splitlines(keepends=True)


def _page(page: Page) -> dict[str, Any]:
    filters = [(_filter(page, name), FILTER_WIDTH, FILTER_HEIGHT) for name in page.filters]
    widgets = [(_widget(page, widget), widget.width, widget.height) for widget in page.widgets]
    layout, left, top, tallest = [], 0, 0, 0
    for n, (made, width, height) in enumerate([*filters, *widgets]):
        if width > WIDTH:
            raise ValueError(f"{made['name']} is wider than the grid's {WIDTH} columns")
        if left + width > WIDTH or (n == len(filters) and left):
            left, top, tallest = 0, top + tallest, 0
        layout.append({"widget": made, "position": {"x": left, "y": top, "width": width, "height": height}})
        left, tallest = left + width, max(tallest, height)
    return {"name": page.name, "displayName": page.title, "pageType": "PAGE_TYPE_CANVAS", "layout": layout}


def _filter(page: Page, name: str) -> dict[str, Any]:
    """A filter that gives a parameter of every dataset of the page one value."""
    values, bound = f"choices_{name}", [q for q in page.queries if any(p.name == name for p in page.chosen(q))]
    queries: list[dict[str, Any]] = [
        {
            "name": values,
            "query": {"datasetName": values, "fields": [_field(name)], "disaggregated": False},
        }
    ]
    queries += [
        {
            "name": f"parameter_{query.name}",
            "query": {
                "datasetName": query.name,
                "parameters": [{"name": name, "keyword": name}],
                "disaggregated": False,
            },
        }
        for query in bound
    ]
    fields = [{"fieldName": name, "displayName": TITLES[name], "queryName": values}]
    fields += [{"parameterName": name, "queryName": f"parameter_{query.name}"} for query in bound]
    return {
        "name": f"{page.name}_filter_{name}",
        "queries": queries,
        "spec": _spec("filter-single-select", TITLES[name], {"fields": fields}),
    }


def _field(name: str, aggregate: str = "") -> dict[str, str]:
    expression = f"`{name}`"
    return {
        "name": f"{aggregate.lower()}({name})" if aggregate else name,
        "expression": f"{aggregate}({expression})" if aggregate else expression,
    }


def _spec(kind: str, title: str, encodings: Mapping[str, Any]) -> dict[str, Any]:
    frame = {"showTitle": True, "title": title}
    return {"version": VERSIONS[kind], "widgetType": kind, "encodings": dict(encodings), "frame": frame}


def _widget(page: Page, widget: Widget) -> dict[str, Any]:
    columns = {c.name: c for c in widget.query.columns}
    shown = [columns[name] for name in widget.names]
    fields = [_field(c.name, widget.aggregate if c.name in widget.y else "") for c in shown]
    made = {
        "table": _table,
        "counter": _counter,
        "bar": _chart,
        "line": _chart,
    }[widget.kind](widget, shown)
    query = {"datasetName": widget.query.name, "fields": fields, "disaggregated": not widget.aggregate}
    return {
        "name": f"{page.name}_{page.widgets.index(widget) + 1}_{widget.kind}",
        "queries": [{"name": "main_query", "query": query}],
        "spec": _spec(widget.kind, widget.title, made),
    }


def _table(_: Widget, shown: Sequence[Column]) -> dict[str, Any]:
    return {"columns": [_cell(column, order) for order, column in enumerate(shown)]}


def _cell(column: Column, order: int) -> dict[str, Any]:
    number, moment = _is_number(column), column.type == "timestamp"
    shown: dict[str, Any] = {
        "fieldName": column.name,
        "displayName": column.name,
        "title": column.name,
        "type": "datetime" if moment else "float" if number else "boolean" if column.type == "boolean" else "string",
        "displayAs": "datetime" if moment else "number" if number else "string",
        "visible": True,
        "order": order,
        "alignContent": "right" if number else "left",
        "description": column.description,
    }
    if number:
        shown["numberFormat"] = "0" if column.type in ("bigint", "int") else "0,0.[00000000]"
    if moment:
        shown["dateTimeFormat"] = "YYYY-MM-DD HH:mm:ss"
    return shown


def _counter(widget: Widget, shown: Sequence[Column]) -> dict[str, Any]:
    (column,) = shown
    return {"value": {"fieldName": _field(column.name, widget.aggregate)["name"], "displayName": widget.title}}


def _chart(widget: Widget, shown: Sequence[Column]) -> dict[str, Any]:
    across = next(c for c in shown if c.name == widget.x)
    scale = "temporal" if across.type in ("timestamp", "date") else "categorical"
    y: dict[str, Any] = {"scale": {"type": "quantitative"}}
    named = [{"fieldName": _field(name, widget.aggregate)["name"], "displayName": name} for name in widget.y]
    y |= named[0] if len(named) == 1 else {"fields": named}
    made: dict[str, Any] = {
        "x": {"fieldName": widget.x, "displayName": widget.x, "scale": {"type": scale}},
        "y": y,
    }
    if widget.color:
        made["color"] = {"fieldName": widget.color, "displayName": widget.color, "scale": {"type": "categorical"}}
    return made


def _is_number(column: Column) -> bool:
    return column.type.startswith(_NUMBERS)
