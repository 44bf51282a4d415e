"""The source: its quota, and this machine's clock against it. No credit is spent."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

from crypto_assets.cli.doctor.finding import HTTP_TIMEOUT_S, SKEW_LIMIT_S, Finding, Level
from crypto_assets.producer.loop import STATE_FILE, governor_of, read_state
from crypto_assets.settings import Settings
from crypto_assets.sources.registry import source_of
from crypto_assets.web import Client, NoReply


def quota(settings: Settings, now: datetime) -> Iterator[Finding]:
    """Credits used and left, from the state that the producer keeps."""
    source = source_of(settings)
    plan = source.plan(settings)
    if plan is None:
        yield Finding("quota", "ok", f"{settings.source} needs no credits")
        return

    folder = settings.home / "state"
    if not (folder / STATE_FILE).exists():
        yield Finding("quota", "note", f"plan {plan}: nothing polled from this home yet", "")
        return
    state = read_state(folder).credits
    report = governor_of(settings).report(state, now)
    level: Level = "error" if report.left == 0 else "warn" if report.dry_on else "ok"
    fix = "" if level == "ok" else source.more_credits
    yield Finding("quota", level, f"plan {plan}: {report.text}", fix)
    if state.blocked_until > now.timestamp():
        until = datetime.fromtimestamp(state.blocked_until, UTC)
        yield Finding("quota", "warn", f"the source asked us to wait until {until:%H:%M:%S}Z", "nothing to do")


def source_clock(settings: Settings) -> Iterator[Finding]:
    """This machine's clock against the Date header of the source (RFC 9110, whole seconds); costs no credit."""
    address = source_of(settings).address(settings)
    if address is None:
        return
    parts = urlsplit(address)
    url = f"{parts.scheme}://{parts.netloc}/"  # not the API: it would cost a call
    try:
        began = datetime.now(UTC)
        with Client() as client:
            answer = client.send("HEAD", url, deadline_s=HTTP_TIMEOUT_S, body=False)
        ended = datetime.now(UTC)
    except NoReply as error:
        yield Finding("source", "error", f"{url} does not answer ({error})", "check the network and proxy settings")
        return
    try:
        theirs = parsedate_to_datetime(answer.headers.get("date", ""))
    except ValueError:
        yield Finding("clock", "note", f"{url} sends no Date header: the clock was not compared", "")
        return
    middle = began + (ended - began) / 2
    skew = (middle - theirs).total_seconds()
    good = abs(skew) <= SKEW_LIMIT_S
    yield Finding(
        "clock",
        "ok" if good else "error",
        f"this machine is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} the source",
        "" if good else "synchronise this machine's clock (NTP): records over 60 s ahead go to quarantine",
    )
