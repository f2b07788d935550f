"""A line in the log every few seconds while there is work, and none while there is not."""

from __future__ import annotations

from loguru import logger

from docfleet.store.progress import Counting, Progress, read_progress

#: Seconds between two lines.
INTERVAL = 10.0


class ProgressLog:
    """A chore of the supervisor. Counts begin with the work at hand: what was done before is no progress."""

    def __init__(self, store: Counting) -> None:
        self._store = store
        #: How things stood before the work at hand began.
        self._before: Progress | None = None
        self._telling = False

    def look(self) -> str | None:
        """Write a line if there is work, or if what the last line told of has ended. Return it."""
        now = read_progress(self._store)
        before = self._before or now
        line = None
        if self._telling or not now.idle:
            line = told(before, now)
            logger.info("{}", line)
        self._telling = not now.idle
        self._before = now if now.idle else before
        return line


def told(before: Progress, now: Progress) -> str:
    """Return the line: what was done since `before`, of how much, how fast, and how long the rest takes."""
    documents = now.documents_done - before.documents_done
    failed = now.documents_failed - before.documents_failed
    pages = now.pages_done - before.pages_done
    given_up = now.pages_failed - before.pages_failed
    ended = documents + failed
    words = [
        f"progress: documents {ended}/{ended + now.documents_waiting + now.documents_running}"
        f" ({documents} ok, {failed} failed)",
        f"pages {pages + given_up}/{pages + given_up + now.pages_waiting} ({given_up} failed)",
        f"{now.pages_per_second:.2f} pages/s",
    ]
    if now.seconds_left is not None and not now.idle:
        words.append(f"{duration(now.seconds_left)} left")
    working = [one for one in now.devices if one.pages_per_second > 0]
    devices = "; ".join(f"{one.device or 'unknown'} {one.pages_per_second:.2f} pages/s" for one in working)
    return ", ".join(words) + (f"; {devices}" if len(working) > 1 else "")


def duration(seconds: float) -> str:
    """Return it for people: "42 s", "3 min 20 s", "5 h 7 min"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
