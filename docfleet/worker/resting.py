"""A worker rests between two shards while memory is short; the supervisor decides it (`supervisor/memory.py`)."""

from __future__ import annotations

from loguru import logger

from docfleet.records import WorkerState
from docfleet.store.pressure import Pressure
from docfleet.worker.heart import Heart


class Rest:
    """Tells one worker whether it may take new work."""

    def __init__(self, pressure: Pressure, heart: Heart) -> None:
        self._pressure = pressure
        self._heart = heart
        #: What the worker said of itself before.
        self._before = ""

    def must_rest(self) -> bool:
        """Return whether to take nothing now, and say so in the worker's state. Call between shards."""
        report = self._heart.report
        reason = self._pressure.resting(report.slot)
        if reason is None:
            if report.state is WorkerState.RESTING:
                self._heart.tell(WorkerState.READY, self._before)
                logger.info("memory is free again: this worker takes work")
            return False
        if report.state is not WorkerState.RESTING:
            self._before = report.detail
            logger.warning("this worker rests: {}", reason)
        if (report.state, report.detail) != (WorkerState.RESTING, reason):
            self._heart.tell(WorkerState.RESTING, reason)
        return True
