"""Events reach every client once and in order, whatever other clients do and however often one reconnects."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

from crypto_assets.serving import hub as hubs
from crypto_assets.serving.events import events_of
from crypto_assets.serving.hub import Event, Hub
from crypto_assets_tests.serving.lakes import NOON, SLOT, Lake, anomaly, bar, price


def _event(number: int, kind: str = "price", coin: str | None = None) -> Event:
    return Event(kind, coin, str(number).encode())


def _parsed(chunk: bytes) -> list[dict[str, str]]:
    """Events of a chunk, as a browser would see them."""
    found = []
    for block in chunk.decode().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.split("\n") if ": " in line and not line.startswith(":"))
        if "event" in fields:
            found.append(fields)
    return found


async def _take(stream: AsyncIterator[bytes], count: int) -> list[dict[str, str]]:
    """The next events of a stream."""
    found: list[dict[str, str]] = []
    while len(found) < count:
        found += _parsed(await anext(stream))
    return found


def test_a_thousand_clients_get_every_event_although_one_does_not_read() -> None:
    async def scenario() -> None:
        hub = Hub()
        streams = [hub.stream(None) for _ in range(1_000)]
        slow = hub.stream(None)
        for stream in (*streams, slow):
            await anext(stream)  # connected
        waiting = [asyncio.create_task(_take(stream, 1)) for stream in streams]
        await asyncio.sleep(0)
        hub.publish([_event(1)])
        first = await asyncio.gather(*waiting)
        hub.publish([_event(2), _event(3)])
        second = await asyncio.gather(*(_take(stream, 2) for stream in streams))
        assert {tuple(e["data"] for e in (*a, *b)) for a, b in zip(first, second, strict=True)} == {("1", "2", "3")}
        assert [e["data"] for e in await _take(slow, 3)] == ["1", "2", "3"]
        assert hub.clients == 1_001

    asyncio.run(scenario())


def test_a_client_that_reconnects_misses_none() -> None:
    async def scenario() -> None:
        hub = Hub()
        stream = hub.stream(None)
        await anext(stream)
        hub.publish([_event(n) for n in range(5)])
        seen = await _take(stream, 5)
        await stream.aclose()
        hub.publish([_event(n) for n in range(5, 9)])
        again = hub.stream(seen[2]["id"])
        assert [e["data"] for e in await _take(again, 6)] == ["3", "4", "5", "6", "7", "8"]
        assert hub.clients == 1

    asyncio.run(scenario())


def test_a_client_without_an_event_yet_misses_none_either() -> None:
    async def scenario() -> None:
        hub = Hub()
        hub.publish([_event(1)])
        hello = (await anext(hub.stream(None))).decode()
        last = next(line for line in hello.split("\n") if line.startswith("id: ")).removeprefix("id: ")
        hub.publish([_event(2)])
        assert [e["data"] for e in await _take(hub.stream(last), 1)] == ["2"]

    asyncio.run(scenario())


def test_what_cannot_be_resumed_is_reset() -> None:
    async def scenario() -> None:
        hub = Hub()
        hub.publish([_event(n) for n in range(hubs.RING + 10)])
        for last in ("0badcafe-3", f"{hub.start}-2", f"{hub.start}-{10**9}", "nonsense"):
            stream = hub.stream(last)
            (found,) = await _take(stream, 1)
            assert found["event"] == "reset"
            hub.publish([_event(7)])
            assert [e["data"] for e in await _take(stream, 1)] == ["7"]

    asyncio.run(scenario())


def test_a_client_that_falls_behind_the_ring_is_reset() -> None:
    async def scenario() -> None:
        hub = Hub()
        slow = hub.stream(None)
        await anext(slow)
        hub.publish([_event(n) for n in range(hubs.RING + 1)])
        (found,) = await _take(slow, 1)
        assert found["event"] == "reset"

    asyncio.run(scenario())


def test_streams_can_be_narrowed_and_end_with_the_hub() -> None:
    async def scenario() -> None:
        hub = Hub()
        stream = hub.stream(None, kinds={"bar", "table"}, coin="bitcoin")
        await anext(stream)
        hub.publish([_event(1, "price"), _event(2, "bar", "ether"), _event(3, "bar", "bitcoin"), _event(4, "table")])
        assert [e["data"] for e in await _take(stream, 2)] == ["3", "4"]
        hub.close()
        assert [chunk async for chunk in stream] == []
        assert hub.clients == 0

    asyncio.run(scenario())


def test_a_commit_becomes_events_of_the_rows_it_changed(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "home")
    bars = [bar("bitcoin", NOON + i * SLOT) for i in range(3)]
    lake.replace("gold.bars_5m", bars)
    lake.merge("gold.latest_prices", [price("bitcoin", "1"), price("ether", "2")])
    lake.replace("gold.anomalies", [anomaly("bitcoin", NOON, 1.0)])
    lake.look()
    lake.replace("gold.bars_5m", [*bars[:2], bar("bitcoin", NOON + 2 * SLOT, "7"), bar("bitcoin", NOON + 3 * SLOT)])
    lake.merge("gold.latest_prices", [price("bitcoin", "1"), price("ether", "3")])
    lake.replace("gold.anomalies", [anomaly("bitcoin", NOON, 1.0), anomaly("bitcoin", NOON + SLOT, 9.0)])
    found = [event for change in lake.service.follower.look() for event in events_of(change)]
    rows = [(e.kind, e.coin, json.loads(e.data)) for e in found if e.kind != "table"]
    shown = {
        (k, c, d["row"].get("close") or d["row"].get("price_usd") or d["row"]["anomaly_score"]) for k, c, d in rows
    }
    assert shown == {
        ("bar", "bitcoin", 7),
        ("bar", "bitcoin", 100.5),
        ("price", "ether", 3),
        ("anomaly", "bitcoin", 9.0),
    }
    assert len(rows) == 4
    tables = {json.loads(e.data)["table"]: json.loads(e.data)["table_version"] for e in found if e.kind == "table"}
    assert tables["gold.bars_5m"] == lake.store.version("gold.bars_5m")
