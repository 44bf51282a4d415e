"""Errors of the log and the embedded broker."""

from __future__ import annotations

from crypto_assets.errors import CANNOT, ReportedError


class BrokerError(ReportedError):
    """The embedded broker failed; the message has the cause and the command or setting that fixes it."""

    exit_code = CANNOT


class LogError(ReportedError):
    """Something about the log is not as it must be; the message names it and the command or setting that fixes it."""

    exit_code = CANNOT


class LogUnavailable(LogError):
    """No broker is configured, running or answering, or it refused an answer."""


class LogWentBackwards(LogError):
    """The log ends before what has already been read from it: it was re-created or restored from an older state."""


class LogTrimmed(LogError):
    """Records of ranges are no longer retained; the message names them, and the remedy."""

    def __init__(self, topic: str, listed: str) -> None:
        super().__init__(
            f"records of topic {topic} are no longer retained: {listed}. They can be accepted as a gap "
            "(accept_gap in the run's config) or filled from history: crypto-assets backfill DAY --from history"
        )


class LogReplaced(LogError):
    """The log holds other records than were stored from it at the same offsets; raised until a person acts."""


class PublishFailed(LogError):
    """Messages were not confirmed by the broker, or are not of their schema; the message has one line for each."""
