"""A table whose commits a catalog keeps is refused by name: its files may show an old version."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from crypto_assets.storage.base import StorageError
from crypto_assets.storage.damage import diagnose
from crypto_assets_tests.storage import catalog_managed
from crypto_assets_tests.storage.rows import FIVE, METRICS, NOW, hour, metrics


@pytest.mark.parametrize("keep", [catalog_managed.by_commit, catalog_managed.by_checkpoint])
@pytest.mark.parametrize("feature", catalog_managed.FEATURES)
def test_nothing_is_read_from_its_files_nor_written(
    store, make_engine, keep: Callable[[Path, str], None], feature: str
):
    store.replace_slice(METRICS, hour(), lambda: metrics(FIVE, [1]), now=NOW)
    path = Path(store.path(METRICS))
    keep(path, feature)
    files = sorted(f for f in path.rglob("*"))
    other = make_engine(path.parents[1]).store
    doings: list[Callable[[], object]] = [
        lambda: other.version(METRICS),
        lambda: other.read(METRICS),
        lambda: other.read_arrow(METRICS),
        lambda: other.replace_slice(METRICS, hour(), lambda: metrics(FIVE, [2]), now=NOW),
        lambda: diagnose(path),
    ]
    if keep is catalog_managed.by_commit:
        doings += [lambda: store.version(METRICS), lambda: store.commits_after(METRICS, 0, 10)]
    for do in doings:
        with pytest.raises(StorageError, match=rf"^{METRICS}: .*\(table feature {feature}\).*DROP FEATURE {feature}$"):
            do()
    assert sorted(f for f in path.rglob("*")) == files


def test_a_table_that_was_given_back_is_read(store, make_engine):
    store.replace_slice(METRICS, hour(), lambda: metrics(FIVE, [1]), now=NOW)
    path = Path(store.path(METRICS))
    catalog_managed.stage(path, 1)
    assert make_engine(path.parents[1]).store.read_arrow(METRICS).num_rows == 1
