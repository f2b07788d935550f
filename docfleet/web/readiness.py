"""Which of the planned workers can take work now, and why the others cannot."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from docfleet.records import WorkerReport, WorkerSlot, WorkerState
from docfleet.web.doors import Doors

_SERVING = (WorkerState.READY, WorkerState.BUSY)


@dataclass(frozen=True)
class Standing:
    """A planned worker and what it said last."""

    slot: WorkerSlot
    report: WorkerReport | None
    #: Seconds since it was heard of; None if it never was.
    silence: float | None
    ready: bool

    @property
    def state(self) -> WorkerState:
        """The state it reported; a worker that never did is starting."""
        return WorkerState.STARTING if self.report is None else self.report.state

    @property
    def explanation(self) -> str:
        """The state for people, with the reason why the worker is not ready."""
        if self.report is None:
            return "starting: it has not reported yet"
        if self.state in _SERVING:
            return str(self.state) if self.ready else f"{self.state}, but silent for {self.silence:.0f} s"
        return f"{self.state}: {self.report.detail}" if self.report.detail else str(self.state)


def standings(doors: Doors, reports: Sequence[WorkerReport]) -> list[Standing]:
    """Match the plan with the workers' reports. Reports of slots that are no longer planned are left out."""
    newest = {report.slot: report for report in reports}
    now = time.time()
    return [_standing(slot, newest.get(slot.index), now, doors.stale_seconds) for slot in doors.plan]


def nobody_can_serve(doors: Doors, reports: Sequence[WorkerReport]) -> str | None:
    """Return why no worker can take work before somebody helps, or None.

    Workers that start, load or are being replaced will serve soon: their documents wait in the queue. Only when every
    single one has said that its engine does not load is it unkind to take another document.
    """
    standing = standings(doors, reports)
    if not standing or any(one.state is not WorkerState.FAILED for one in standing):
        return None
    reasons = dict.fromkeys((one.report.detail if one.report else "").rstrip(". ") for one in standing)
    return "; ".join(reason or "no reason was given" for reason in reasons) + "."


def _standing(slot: WorkerSlot, report: WorkerReport | None, now: float, stale_seconds: float) -> Standing:
    if report is None:
        return Standing(slot, None, None, ready=False)
    silence = max(0.0, now - report.heartbeat_at)
    return Standing(slot, report, silence, ready=report.state in _SERVING and silence <= stale_seconds)
