"""The Spark session of a task: made when first used, whichever way it is asked for, with the catalog of the workspace.

The JVM is one that the workspace lends (`jvms`), as on a cluster, where it runs before the task comes. A cluster gives
a classic session. Serverless compute gives a Spark Connect client (`connect`).

Tables are folders of the lake; each process has a catalog of its own, so it looks for folders that it does not know
yet before it runs a statement: what another task made is there at once, as with Unity Catalog.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import re
import sys
import threading
import urllib.request
from importlib.abc import Loader, MetaPathFinder
from pathlib import Path
from typing import Any

import connect

NEW_SCHEMA = re.compile(r"\s*CREATE\s+(SCHEMA|DATABASE)\s+(IF\s+NOT\s+EXISTS\s+)?(?P<name>[\w`.-]+)", re.IGNORECASE)
CATALOG_TABLE = "org.apache.spark.sql.catalyst.catalog.CatalogTable"
_spec: dict[str, Any] = {}
_lock = threading.RLock()
_state: dict[str, Any] = {"session": None, "known": set(), "busy": False, "server": None}


def install(spec: dict[str, Any]) -> None:
    """Remember the settings, and change `pyspark.sql.session` when something imports it."""
    _spec.update(spec)
    sys.meta_path.insert(0, _Patcher())


class _Patcher(MetaPathFinder, Loader):
    """Loads `pyspark.sql.session` as usual and then changes it."""

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> Any:
        if fullname != "pyspark.sql.session":
            return None
        sys.meta_path.remove(self)
        found = importlib.util.find_spec(fullname)
        assert found is not None
        assert found.loader is not None
        load = found.loader.exec_module

        def exec_module(module: Any) -> None:
            load(module)
            _change(module)

        found.loader.exec_module = exec_module  # type: ignore[method-assign]
        return found


def _change(module: Any) -> None:
    session_class = module.SparkSession
    if _spec["serverless"]:
        session_class.Builder.getOrCreate = lambda _: get()
        session_class.getActiveSession = classmethod(lambda _: get())
        session_class.active = classmethod(lambda _: get())
        connect.hide_classic()
        return
    builder = session_class.Builder
    make = builder.getOrCreate

    def get_or_create(self: Any) -> Any:
        with _lock:
            if _spec["spark_conf"] is None:
                raise RuntimeError("no Spark here: the stand-in's Workspace was made with spark=False")
            if _state["session"] is None and not _state["busy"]:
                _state["busy"] = True
                try:
                    _borrow_jvm()
                    for name, value in _spec["spark_conf"].items():
                        self._options.setdefault(name, value)
                    session = make(self)
                    _prepare(session)
                    _state["session"] = session
                finally:
                    _state["busy"] = False
                return session
        return make(self)

    builder.getOrCreate = get_or_create
    plain = session_class.getActiveSession.__func__

    def active(cls: Any) -> Any:
        # A cluster has its session from the start.
        return plain(cls) or (None if _state["busy"] else get())

    session_class.getActiveSession = classmethod(active)
    session_class.active = classmethod(lambda _: get())
    _look_first(session_class)


def _look_first(session_class: Any) -> None:
    """Let every way to a table look for new ones first."""
    session_class.table = _looking(session_class.table)
    run = _looking(session_class.sql)
    session_class.sql = functools.wraps(session_class.sql)(
        lambda self, sqlQuery, *args, **named: run(self, placed(sqlQuery), *args, **named)  # noqa: N803 - their name
    )
    for name in ("catalog", "read"):
        plain_property = vars(session_class)[name]
        getter = getattr(plain_property, "fget", None) or plain_property.func
        setattr(session_class, name, property(_looking(getter)))


def _looking(function: Any) -> Any:
    @functools.wraps(function)
    def call(self: Any, *args: Any, **named: Any) -> Any:
        look(_state["server"] or self)
        return function(self, *args, **named)

    return call


def placed(statement: str) -> str:
    """The statement, with a new schema's tables in the lake unless it says itself where they are to be."""
    found = NEW_SCHEMA.match(statement)
    if found is None or re.search(r"\bLOCATION\b", statement, re.IGNORECASE):
        return statement
    schema = found["name"].split(".")[-1].strip("`")
    return f"{found[0]} LOCATION '{Path(_spec['lake']) / schema}'{statement[found.end() :]}"


def get() -> Any:
    """The session."""
    with _lock:
        if _state["session"] is None:
            from pyspark.sql import SparkSession

            if _spec["serverless"]:
                _connect()
            else:
                SparkSession.builder.getOrCreate()
        return _state["session"]


def _connect() -> None:
    """Start the server of a serverless task and be its client."""
    if _spec["spark_conf"] is None:
        raise RuntimeError("no Spark here: the stand-in's Workspace was made with spark=False")
    _borrow_jvm()
    server, client = connect.start(_spec["spark_conf"])
    _state["server"] = server
    _prepare(server)
    connect.prepare(server, client, _spec["catalog"])
    _look_first(type(client))
    _state["session"] = client


def _borrow_jvm() -> None:
    """Ask the workspace for a JVM, and let pyspark find it where it looks for one that runs already."""
    wanted = _spec["jvm"]
    body = json.dumps({"run": wanted["run"], "conf": _spec["spark_conf"]}).encode()
    request = urllib.request.Request(wanted["url"], body, {"Authorization": f"Bearer {wanted['token']}"})
    with urllib.request.urlopen(request, timeout=180) as answer:
        lent = json.load(answer)
    os.environ["PYSPARK_GATEWAY_PORT"], os.environ["PYSPARK_GATEWAY_SECRET"] = str(lent["port"]), lent["secret"]
    os.environ["SPARK_CONNECT_AUTHENTICATE_TOKEN"] = lent["token"]


def stop() -> None:
    """End the session, if there is one: the JVM goes on to another run, without anything of this one."""
    classic = _state["server"] or _state["session"]
    if classic is not None:
        classic._jvm.org.apache.spark.sql.delta.DeltaLog.clearCache()
    for session in (_state["session"], _state["server"]):
        if session is None:
            continue
        try:
            session.stop()
        except Exception as error:  # noqa: BLE001 - the task has ended already, and how it ended is told
            print(f"stopping Spark: {error}", file=sys.stderr)


def _prepare(session: Any) -> None:
    """Let the catalog's name stand for the session's own tables, which is what a delegate is for."""
    manager = session._jsparkSession.sessionState().catalogManager()
    manager.catalog(_spec["catalog"]).setDelegateCatalog(manager.v2SessionCatalog())
    look(session)


def look(session: Any) -> None:
    """Register schemas and tables that the lake has and this process does not know."""
    with _lock:
        if _state.get("looking"):
            return
        _state["looking"] = True
        try:
            _look(session)
        finally:
            _state["looking"] = False


def _look(session: Any) -> None:
    known, catalog = _state["known"], _spec["catalog"]
    # What was dropped may be made anew by another task.
    known -= {n for n in known if not Path(_spec["lake"], *n.split(".")).is_dir()}
    for schema in sorted(p for p in Path(_spec["lake"]).iterdir() if p.is_dir()):
        if schema.name not in known:
            session.sql(f"CREATE SCHEMA IF NOT EXISTS {catalog}.`{schema.name}` LOCATION '{schema}'")
            known.add(schema.name)
        for log in sorted(schema.glob("*/_delta_log")):
            name = f"{schema.name}.{log.parent.name}"
            if name not in known and any(log.glob("*.json")):
                _register(session, schema.name, log.parent)
                known.add(name)


def _register(session: Any, schema: str, folder: Path) -> None:
    """Put a managed Delta table into the catalog as Delta itself does: without a schema, which its log has.

    A `CREATE TABLE` would do, but takes a second for each table.
    """
    java = session._jvm
    catalyst, some = java.org.apache.spark.sql.catalyst, java.scala.Some
    kind = catalyst.catalog.CatalogTable
    storage = catalyst.catalog.CatalogStorageFormat.empty()
    fields = [storage.productElement(i) for i in range(storage.productArity())]
    storage = storage.copy(some(java.java.net.URI(folder.as_uri())), *fields[1:])
    named = catalyst.TableIdentifier(folder.name, some(schema), some("spark_catalog"))
    columns = java.org.apache.spark.sql.types.StructType()
    given = [named, catalyst.catalog.CatalogTableType.MANAGED(), storage, columns, some("delta")]
    # The other fields have defaults; how many there are depends on the version of Spark.
    arity = max(c.getParameterCount() for c in named.getClass().forName(CATALOG_TABLE).getConstructors())
    rest = [getattr(kind, f"apply$default${i}")() for i in range(len(given) + 1, arity + 1)]
    table = kind(*given, *rest)
    session._jsparkSession.sessionState().catalog().createTable(table, True, False)
