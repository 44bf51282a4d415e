"""Plots: what can be drawn is drawn, as one small image in markdown."""

from __future__ import annotations

import base64
import xml.etree.ElementTree as ElementTree
from datetime import UTC, datetime, timedelta

from crypto_assets.assets.plots import POINTS_AT_MOST, lines

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
SVG = "{http://www.w3.org/2000/svg}"


def drawn(markdown) -> ElementTree.Element:
    head, data = markdown.text.removesuffix(")").split("base64,")
    assert head.startswith("![")
    return ElementTree.fromstring(base64.b64decode(data))


def points(count: int, scale: float = 1.0) -> list[tuple[datetime, float]]:
    return [(NOON + timedelta(minutes=5 * i), scale * i) for i in range(count)]


def test_a_line_a_name_with_its_marks_and_legend():
    image = drawn(lines("moves", "%", {"A<B": points(10), "ETH": points(10, 2.0)}, marks={"ETH": [points(10, 2.0)[3]]}))
    assert len(image.findall(f"{SVG}polyline")) == 2
    assert len(image.findall(f"{SVG}circle")) == 1
    texts = [t.text for t in image.findall(f"{SVG}text")]
    assert "A<B" in texts
    assert "moves [%]  0 to 18" in texts
    assert "2026-01-02 12:00 to 2026-01-02 12:45 UTC" in texts


def test_a_long_series_is_thinned_and_keeps_its_last_point():
    image = drawn(lines("long", "USD", {"BTC": points(10_000)}))
    xy = image.find(f"{SVG}polyline").get("points").split()
    assert POINTS_AT_MOST <= len(xy) <= POINTS_AT_MOST + 5
    assert xy[-1] == "616,24"


def test_a_hole_in_time_breaks_the_line():
    apart = [(t + timedelta(hours=7), v) for t, v in points(5)]
    image = drawn(lines("hole", "USD", {"BTC": [*points(5), *apart]}))
    assert len(image.findall(f"{SVG}polyline")) == 2


def test_thinning_keeps_the_peak():
    spike = [(t, 50.0 if i == 777 else 0.0) for i, (t, _) in enumerate(points(2_000))]
    xy = drawn(lines("peak", "USD", {"BTC": spike})).find(f"{SVG}polyline").get("points").split()
    assert any(p.endswith(",24") for p in xy)


def test_a_flat_line_is_a_line_and_a_point_is_none():
    assert drawn(lines("flat", "USD", {"BTC": [(t, 1.0) for t, _ in points(3)]})).find(f"{SVG}polyline") is not None
    assert lines("nothing", "USD", {"BTC": points(1), "ETH": []}) is None
