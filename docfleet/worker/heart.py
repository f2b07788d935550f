"""A worker's sign of life: a thread that extends the lease and tells the store what the worker is doing."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import psutil
from loguru import logger

from docfleet.errors import DocfleetError
from docfleet.records import Claim, Stage, WorkerReport, WorkerState
from docfleet.store.claims import Claims

#: Seconds between two beats while a shard is held, and while the worker is idle.
BUSY_INTERVAL = 0.5
IDLE_INTERVAL = 5.0


#: How a note begins.
_FRUGAL = "memory ran out: it reads"


class LeaseLost(Exception):
    """The shard belongs to somebody else now; stop working on it."""


class Heart:
    """Keeps the worker's report up to date. The parser may hold the interpreter: a thread still gets its turns."""

    def __init__(self, claims: Claims, report: WorkerReport) -> None:
        self._claims = claims
        self._lock = threading.Lock()
        self._report = report
        self._claim: Claim | None = None
        self._pages = 0
        self._lost = False
        self._seated = True
        #: Code of the store's error that was logged last; empty while all is well.
        self._trouble = ""
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heart", daemon=True)

    @property
    def report(self) -> WorkerReport:
        """What the worker said of itself last."""
        with self._lock:
            return self._report

    @property
    def seated(self) -> bool:
        """Whether the slot that the worker announced itself in last is its own."""
        with self._lock:
            return self._seated

    def move(self, slot: int) -> None:
        """Tell from now on what the worker does in another slot, which the store has given to it."""
        with self._lock:
            state = WorkerState.READY if self._report.state is WorkerState.SPARE else self._report.state
            self._report = replace(self._report, slot=slot, state=state, detail="", started_at=time.time())
        self._say()

    def start(self) -> None:
        """Announce the worker and begin beating."""
        self._say()
        self._thread.start()

    def tell(self, state: WorkerState, detail: str = "", *, retry_at: float = 0.0) -> None:
        """Change what the worker says of itself, at once."""
        with self._lock:
            self._report = replace(self._report, state=state, detail=detail, retry_at=retry_at)
        self._say()

    def able(self, engines: str) -> None:
        """Tell from the next announcement on what the loaded engines are: their fingerprint."""
        with self._lock:
            self._report = replace(self._report, engines=engines)

    def takes(self, share: float) -> None:
        """Tell from now on how much of its share of memory the worker takes; all of it is not worth a word."""
        note = "" if share >= 1 else f"{_FRUGAL} with {share:g} of its share"
        with self._lock:
            kept = self._report.detail.partition(_FRUGAL)[0].removesuffix("; ")
            self._report = replace(self._report, detail="; ".join(filter(None, (kept, note))))
        self._wake.set()

    def hold(self, claim: Claim) -> None:
        """Begin to beat for a shard."""
        with self._lock:
            self._claim, self._pages, self._lost = claim, 0, False
            self._report = replace(self._report, state=WorkerState.BUSY, shard_id=claim.shard_id)
        self._wake.set()

    def pages_done(self, pages: int) -> None:
        """Record progress on the held shard; called between pages.

        Raises:
            LeaseLost: the lease was lost meanwhile.
        """
        with self._lock:
            self._pages = pages
            if self._lost:
                raise LeaseLost

    def release(self, *, delivered: bool) -> None:
        """End the beat for the held shard."""
        with self._lock:
            report, pages = self._report, self._pages
            stage = self._claim.stage if delivered and self._claim is not None else None
            self._claim = None
            self._report = replace(
                report,
                state=WorkerState.READY,
                shard_id=None,
                # A document counts where it is finished, a page where it is read.
                documents_done=report.documents_done + int(stage is not None and not stage.is_part),
                pages_done=report.pages_done + (pages if stage in (Stage.PAGES, Stage.WHOLE) else 0),
            )
        self._say()

    def _say(self) -> None:
        # A store that is full or held for a while must not end the worker: the next beat says it again.
        with self._going_on():
            self._announce()

    def _run(self) -> None:
        while True:
            with self._lock:
                busy = self._claim is not None
            self._wake.wait(BUSY_INTERVAL if busy else IDLE_INTERVAL)
            self._wake.clear()
            # A store that is locked or full for a while must not end the heart: the next beat tries again.
            with self._going_on():
                self._beat()
                self._announce()
                self._trouble = ""

    @contextlib.contextmanager
    def _going_on(self) -> Iterator[None]:
        try:
            yield
        except DocfleetError as exc:
            # Twice a second for as long as it lasts: on a full disk, into a log that often lies on the same one.
            if exc.code != self._trouble:
                logger.warning("the store cannot be told that this worker lives: {}", exc.message)
                self._trouble = exc.code
        except Exception:
            logger.exception("the store cannot be told that this worker lives")

    def _beat(self) -> None:
        with self._lock:
            claim, pages = self._claim, self._pages
        if claim is None or self._claims.beat(claim, pages):
            return
        with self._lock:
            self._lost = self._claim is claim

    def _announce(self) -> None:
        rss = resident_bytes()
        with self._lock:
            self._report = replace(self._report, heartbeat_at=time.time(), rss=rss)
            report = self._report
        seated = self._claims.announce(report)
        with self._lock:
            # Meanwhile it may have been moved.
            if report.slot == self._report.slot:
                self._seated = seated


def resident_bytes() -> int:
    """Return the resident memory of this process and its children, in bytes."""
    process = psutil.Process()
    total = 0
    for member in (process, *process.children(recursive=True)):
        with contextlib.suppress(psutil.Error):
            total += member.memory_info().rss
    return total
