"""Answers are the rows of the table version that their provenance names, whatever is committed meanwhile."""

from __future__ import annotations

import json
import threading
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from crypto_assets.contracts.slices import DAY, HOUR
from crypto_assets.contracts.tables import TABLES
from crypto_assets.serving.kept import KEPT
from crypto_assets_tests.serving.lakes import COINS, NOON, SLOT, TINY, Lake, anomaly, bar, price, row, shown


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path / "home")


def _stored(lake: Lake, table: str, version: int, order: str, **equal: Any) -> list[dict[str, Any]]:
    """Rows of a version by the store, as answers show them."""
    where = " AND ".join(f"{name} = '{value}'" for name, value in equal.items()) or None
    rows = lake.store.read_arrow(table, where=where, version=version).sort_by(order)
    found = shown(table, rows, [c.name for c in KEPT[table].columns])
    for each in found:
        for name in ("explanation", "covered_offsets"):
            if each.get(name):
                each[name] = json.loads(each[name], parse_float=Decimal)
    return found


def test_money_is_plain_decimal_text(lake: Lake) -> None:
    lake.merge("gold.latest_prices", [price("shiba-inu", TINY), price("bitcoin", "116406.100")])
    lake.look()
    text = lake.client.get("/v1/prices/latest").text
    assert '"price_usd":0.000000019,' in text
    assert '"price_usd":116406.1,' in text


def test_bars_equal_the_version_of_their_provenance(lake: Lake) -> None:
    days = [NOON - DAY, NOON]
    for day in days:
        rows = [bar(c, day + i * SLOT, TINY * (i + 1), price_vol=0.1 / 3) for c in COINS for i in range(20)]
        lake.replace("gold.bars_5m", rows, day)
    lake.look()
    answer = lake.get("/v1/bars/shiba-inu?limit=5000")
    version = answer["provenance"]["table_version"]
    assert version == lake.store.version("gold.bars_5m")
    assert answer["data"] == _stored(lake, "gold.bars_5m", version, "window_start", coin_id="shiba-inu")
    assert len(answer["data"]) == 40


def test_every_route_shows_its_table(lake: Lake) -> None:
    lake.merge("gold.latest_prices", [price(coin, "2.5") for coin in COINS])
    lake.merge("gold.leaderboard_24h", [row(TABLES["gold.leaderboard_24h"], coin_id="bitcoin", rank=1)])
    lake.replace("gold.anomalies", [anomaly(c, NOON + i * SLOT, float(i)) for c in COINS for i in range(1, 9)])
    made = {"coin_id": "bitcoin", "horizon": "5m", "day_start": NOON.replace(hour=0), "mode": "live"}
    lake.replace("gold.prediction_accuracy", [row(TABLES["gold.prediction_accuracy"], **made)])
    lake.look()
    for path, table, order in (
        ("/v1/prices/latest", "gold.latest_prices", "coin_id"),
        ("/v1/leaderboard", "gold.leaderboard_24h", "rank"),
        ("/v1/accuracy", "gold.prediction_accuracy", "coin_id"),
    ):
        answer = lake.get(path)
        assert answer["data"] == _stored(lake, table, answer["provenance"]["table_version"], order)
        assert answer["data"]
    times = {"window_end": NOON, "target_at": NOON + HOUR, "predicted_at": NOON}
    forecasts = [
        row(TABLES["gold.price_predictions"], coin_id="bitcoin", horizon=horizon, mode="live", **times)
        for horizon in ("5m", "1h")
    ]
    lake.insert("gold.price_predictions", forecasts)
    lake.look()
    found = lake.get("/v1/predictions/bitcoin")["data"]
    assert found == _stored(
        lake, "gold.price_predictions", lake.store.version("gold.price_predictions") or 0, "horizon"
    )
    assert lake.get("/v1/predictions/bitcoin?horizon=5m")["data"] == found[1:]
    flags = lake.get("/v1/anomalies?flagged=true&coin=bitcoin")["data"]
    stored = _stored(lake, "gold.anomalies", lake.store.version("gold.anomalies") or 0, "window_end", coin_id="bitcoin")
    assert flags == [each for each in stored if each["is_anomaly"]]
    assert len(flags) == 3


@pytest.mark.parametrize(
    ("path", "unknown", "has"),
    [
        ("/v1/anomalies?is_anomaly=true&flagged=true&colour=red", "is_anomaly, colour", "coin, cursor"),
        ("/v1/prices/latest?coins=bitcoin", "coins", "it has as_of, coin"),
        ("/v1/status?verbose=1", "verbose", "it has none"),
    ],
)
def test_a_parameter_that_a_route_does_not_have_is_refused(lake: Lake, path: str, unknown: str, has: str) -> None:
    refused = lake.get(path, 422)
    assert refused["detail"].startswith(f"the route has no parameter {unknown}; ")
    assert has in refused["detail"]
    assert [e["where"] for e in refused["errors"]] == [f"query.{name}" for name in unknown.split(", ")]


def test_rows_stay_those_of_one_version_while_a_writer_commits_and_files_are_compacted(lake: Lake) -> None:
    def write(number: int) -> None:
        for coin in COINS:  # one hour each: several small files a day
            hour = NOON + number % 6 * HOUR
            lake.store.replace_slice(
                "gold.bars_5m",
                _hour(hour),
                lambda coin=coin, hour=hour: _table([bar(coin, hour + i * SLOT, str(number + 1)) for i in range(12)]),
                now=NOON + DAY,
                rebuild=True,
            )

    write(0)
    lake.look()
    failed: list[Exception] = []
    done = threading.Event()

    def writer() -> None:
        try:
            for number in range(1, 12):
                write(number)
                if number % 4 == 0:
                    lake.store.maintain(
                        "gold.bars_5m", as_of=NOON + 3 * DAY, closed_before=NOON + 2 * DAY, dry_run=False
                    )
        except Exception as error:  # noqa: BLE001 - shown below
            failed.append(error)
        finally:
            done.set()

    thread = threading.Thread(target=writer)
    thread.start()
    versions = {}
    while not done.is_set() or not versions:
        lake.look()
        answer = lake.client.get("/v1/bars/shiba-inu?limit=5000").json(parse_float=Decimal)
        if "data" in answer:
            versions[answer["provenance"]["table_version"]] = answer["data"]
    thread.join()
    lake.look()
    assert not failed
    for version, data in versions.items():
        assert data == _stored(lake, "gold.bars_5m", version, "window_start", coin_id="shiba-inu")
    assert len(versions) > 1


def test_pages_of_a_range_are_all_its_rows(lake: Lake) -> None:
    for back in range(17, -1, -1):  # more days than stay in memory
        day = NOON - back * DAY
        lake.replace("gold.bars_5m", [bar("bitcoin", day + i * SLOT) for i in range(3)], day)
    lake.look()
    first = (NOON - 17 * DAY).isoformat().replace("+00:00", "Z")
    whole = lake.get(f"/v1/bars/bitcoin?from={first}&limit=5000")
    found, path = [], f"/v1/bars/bitcoin?from={first}&limit=7"
    while path:
        page = lake.get(path)
        assert len(page["data"]) <= 7
        found += page["data"]
        following = page["provenance"]["next"]
        path = f"/v1/bars/bitcoin?from={first}&limit=7&cursor={following}" if following else ""
    assert found == whole["data"]
    assert len(found) == 18 * 3
    assert lake.get("/v1/bars/bitcoin?limit=50")["data"] == found[-50:]  # also from days that are not in memory
    assert lake.service.follower.encoded.held()["gold.bars_5m"] == 14 * 3


def test_a_coin_without_rows_in_memory_has_its_older_ones(lake: Lake) -> None:
    lake.replace("gold.bars_5m", [bar("retired", NOON - 20 * DAY)], NOON - 20 * DAY)
    lake.replace("gold.bars_5m", [bar("bitcoin", NOON)])
    lake.merge("gold.latest_prices", [price("bitcoin", "1"), price("retired", "1", NOON - 20 * DAY)])
    lake.look()
    assert [b["window_start"] for b in lake.get("/v1/bars/retired")["data"]] == [_z(NOON - 20 * DAY)]
    lake.get("/v1/bars/unknown", 404)


def test_a_tag_is_good_until_the_next_commit(lake: Lake) -> None:
    lake.merge("gold.latest_prices", [price("bitcoin", "1")])
    lake.look()
    tag = lake.client.get("/v1/prices/latest").headers["etag"]
    again = lake.client.get("/v1/prices/latest", headers={"If-None-Match": tag})
    assert (again.status_code, again.content) == (304, b"")
    lake.merge("gold.latest_prices", [price("bitcoin", "2")])
    lake.look()
    later = lake.client.get("/v1/prices/latest", headers={"If-None-Match": tag})
    assert later.status_code == 200
    assert later.json()["data"][0]["price_usd"] == 2
    assert later.headers["etag"] != tag


def test_answers_are_compressed_for_those_who_ask(lake: Lake) -> None:
    lake.replace("gold.bars_5m", [bar("bitcoin", NOON + i * SLOT) for i in range(30)])
    lake.look()
    packed = lake.client.get("/v1/bars/bitcoin", headers={"Accept-Encoding": "gzip"})
    plain = lake.client.get("/v1/bars/bitcoin", headers={"Accept-Encoding": "identity"})
    assert packed.headers["content-encoding"] == "gzip"
    assert "content-encoding" not in plain.headers
    assert packed.json()["data"] == plain.json()["data"]
    assert int(packed.headers["content-length"]) < int(plain.headers["content-length"]) / 4


def test_what_cannot_be_asked_is_a_problem(lake: Lake) -> None:
    lake.replace("gold.bars_5m", [bar("bitcoin", NOON)])
    lake.look()
    for path, status, text in (
        ("/v1/bars/ether", 404, "it has bitcoin"),
        ("/v1/bars/bitcoin?from=2026-11-29T00:00:00", 422, "timezone"),
        ("/v1/bars/bitcoin?interval=2m", 422, "interval"),
        ("/v1/bars/bitcoin?limit=5001", 422, "limit"),
        ("/v1/bars/bitcoin?from=2026-11-29T00:00:00Z&to=2026-11-28T00:00:00Z", 422, "later than"),
        ("/v1/prices/latest", 404, "no commit yet"),
        ("/v1/sql?q=select", 404, "no such route"),
    ):
        answer = lake.client.get(path)
        assert answer.headers["content-type"] == "application/problem+json"
        problem = answer.json()
        assert (answer.status_code, problem["status"]) == (status, status)
        assert text in problem["detail"]


def test_a_table_that_cannot_be_read_keeps_the_others_served(lake: Lake) -> None:
    lake.merge("gold.latest_prices", [price("bitcoin", "1")])
    lake.replace("gold.bars_5m", [bar("bitcoin", NOON)])
    lake.look()
    commit = Path(lake.store.path("gold.bars_5m")) / "_delta_log" / f"{2:020d}.json"
    commit.write_text('{"cut', encoding="utf-8")
    lake.look()
    assert lake.client.get("/readyz").status_code == 200
    assert lake.get("/v1/bars/bitcoin")["provenance"]["table_version"] == 1
    assert set(lake.get("/v1/status")["data"]["troubles"]) == {"gold.bars_5m"}
    fresh = Lake(lake.home.path)
    fresh.look()
    problem = fresh.get("/v1/bars/bitcoin", 503)
    assert "gold.bars_5m cannot be read" in problem["detail"]
    assert fresh.get("/v1/prices/latest")["data"]


def test_the_board_of_an_empty_home_is_honest(lake: Lake) -> None:
    lake.look()
    board = lake.get("/v1/board")
    assert board["data"]["prices"] == []
    assert "holds no prices yet" in board["provenance"]["ready"]
    ready = lake.client.get("/readyz")
    assert ready.status_code == 503
    assert ready.headers["content-type"] == "application/problem+json"


def test_the_board_holds_what_the_page_shows_first(lake: Lake) -> None:
    lake.merge("gold.latest_prices", [price(coin, "2.5") for coin in COINS])
    lake.replace("gold.bars_5m", [bar(c, NOON + i * SLOT, str(i + 1)) for c in COINS for i in range(9)])
    lake.replace("gold.anomalies", [anomaly(c, NOON + i * SLOT, float(i)) for c in COINS for i in range(1, 9)])
    lake.look()
    board = lake.get("/v1/board?coin=bitcoin")
    assert [p["coin_id"] for p in board["data"]["prices"]] == list(COINS)
    assert board["data"]["sparklines"]["bitcoin"][-1] == [_z(NOON + 8 * SLOT), 9]
    assert [f["coin_id"] for f in board["data"]["flags"]] == [*COINS] * 3
    assert len(board["data"]["coin"]["bars"]) == 9
    assert board["provenance"]["tables"]["gold.bars_5m"]["table_version"] == lake.store.version("gold.bars_5m")
    assert board["provenance"]["ready"] is None


def test_queries_of_the_catalogue_are_answered_and_nothing_else(lake: Lake) -> None:
    lake.merge("gold.latest_prices", [price("shiba-inu", TINY)])
    lake.look()
    answer = lake.client.get("/v1/queries/latest_prices?coin=shiba-inu")
    assert '"price_usd":0.000000019,' in answer.text
    assert answer.json()["provenance"]["tables"] == {"gold.latest_prices": 1}
    again = lake.client.get("/v1/queries/latest_prices", headers={"If-None-Match": answer.headers["etag"]})
    assert again.status_code == 304
    lake.merge("gold.latest_prices", [price("shiba-inu", "2")])
    assert lake.get("/v1/queries/latest_prices")["data"][0]["price_usd"] == 2
    listed = lake.get("/v1/queries")["data"]
    for query in listed:
        found = lake.get(f"/v1/queries/{query['name']}")
        assert {name for each in found["data"] for name in each} <= {c["name"] for c in query["columns"]}
    assert "board" in {query["name"] for query in listed}
    for path, status, text in (
        ("/v1/queries/other", 404, "there is no query 'other'"),
        ("/v1/queries/latest_prices?sql=select", 422, "'sql' is no parameter"),
        ("/v1/queries/latest_prices?coin=a&coin=b", 422, "more than once"),
        ("/v1/queries/latest_prices?now=2026-11-29T12:00:00", 422, "time zone"),
        ("/v1/queries/latest_prices?coin='; drop table x", 200, ""),
    ):
        assert text in lake.client.get(path).text
        assert lake.client.get(path).status_code == status


def _z(moment: Any) -> str:
    return moment.isoformat().replace("+00:00", "Z")


def _hour(hour: Any) -> Any:
    from crypto_assets.contracts.slices import Slice

    return Slice(hour, hour + timedelta(hours=1))


def _table(rows: list[dict[str, Any]]) -> Any:
    import pyarrow as pa

    from crypto_assets.contracts.arrow import arrow_schema

    return pa.Table.from_pylist(rows, schema=arrow_schema(TABLES["gold.bars_5m"]))


def test_a_page_of_older_days_reads_as_many_days_as_it_needs(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    days = [NOON + n * DAY for n in range(-25, 1)]
    starts = [day.replace(hour=0) + i * 6 * HOUR for day in days for i in range(4)]
    for day in days:
        lake.replace("gold.bars_5m", [bar(c, s) for c in COINS for s in starts if s.date() == day.date()], day)
    lake.look()
    read: list[Any] = []
    encoded = lake.service.follower.encoded
    rows = encoded.rows
    monkeypatch.setattr(encoded, "rows", lambda kept, file: (read.append(file.day), rows(kept, file))[1])
    path, found, pages = f"/v1/bars/bitcoin?from={starts[0]:%Y-%m-%dT%H:%M:%SZ}&limit=5", [], 0
    cursor: str | None = ""
    answer: dict[str, Any] = {}
    while cursor is not None:
        read.clear()
        answer = lake.get(f"{path}&cursor={cursor}" if cursor else path)
        assert len(answer["data"]) == 5 or not answer["provenance"]["truncated"]
        older = {day for day in read if day <= days[-15].date()}  # fourteen are in memory
        assert len(older) <= 4, (cursor, older)  # the day before, and six rows of four a day
        found += answer["data"]
        cursor, pages = answer["provenance"]["next"], pages + 1
    assert found == _stored(
        lake, "gold.bars_5m", answer["provenance"]["table_version"], "window_start", coin_id="bitcoin"
    )
    assert pages == 21


def test_rows_of_midnight_are_on_one_page_whichever_day_they_lie_in(lake: Lake) -> None:
    last = NOON.replace(hour=0)  # ends at midnight, and lies in the day before
    for n in range(-12, 1):
        ends = [last + n * DAY - i * 6 * HOUR for i in range(4)]
        rows = [anomaly(c, end, 1.0) for c in COINS for end in ends]
        lake.replace("gold.anomalies", rows, last + n * DAY - SLOT)
    lake.look()
    begin = last - 11 * DAY
    for limit in (1, 2, 3, 7, 8):
        answer = lake.get(f"/v1/anomalies?from={begin:%Y-%m-%dT%H:%M:%SZ}&limit={limit}")
        ends = [each["window_end"] for each in answer["data"]]
        expected = -(-limit // 2)  # two coins at every time
        assert ends == sorted(ends)
        assert ends[0] == f"{begin:%Y-%m-%dT%H:%M:%SZ}"
        assert len(ends) == 2 * expected
        assert answer["provenance"]["next"] == f"{begin + expected * 6 * HOUR:%Y-%m-%dT%H:%M:%SZ}"


def test_a_filter_over_weeks_encodes_what_it_wants_and_reads_each_day_once(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    days = [NOON + n * DAY for n in range(-25, 1)]
    flagged = {days[0], days[3], days[-1]}
    for day in days:
        ends = [day.replace(hour=0) + n * HOUR for n in range(1, 5)]
        score = 9.0 if day in flagged else 1.0
        rows = [anomaly(c, end, score if c == COINS[0] else 1.0, suspicion="stale") for c in COINS for end in ends]
        lake.replace("gold.anomalies", rows, day)
    lake.look()
    encoded, made = lake.service.follower.encoded, list[Any]()
    really = encoded._encoded

    def watched(kept: Any, file: Any, *having: Any) -> Any:
        made.append((file.day, found := really(kept, file, *having)))
        return found

    monkeypatch.setattr(encoded, "_encoded", watched)
    version = lake.store.version("gold.anomalies")
    assert version is not None
    rows = [r for r in _stored(lake, "gold.anomalies", version, "window_start") if r["is_anomaly"]]
    for query, wanted, most in [
        ("flagged=true", rows, len(rows)),
        (f"flagged=true&from={days[0]:%Y-%m-%dT00:00:00Z}", rows, len(rows)),
        (f"flagged=true&coin={COINS[1]}", [], len(rows)),
        ("suspicion=frozen", [], 0),
    ]:
        made.clear()
        assert lake.get(f"/v1/anomalies?{query}&limit=1000")["data"] == wanted, query
        assert len(made) == len({day for day, _ in made}) > 0, query
        assert sum(len(found) for _, file in made for found in file.groups.values()) <= most, query
