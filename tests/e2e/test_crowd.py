"""Five hundred requests at once, on the real server over real sockets."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.crowds import crowd, watched
from tests.serving import FAULTY, blank_pdf, running, wait_ready

#: Bytes that the API process may take, whatever comes.
MOST = 300 * 2**20
#: Fewer files than there are callers, as the usual soft limit would be for more of them: the server raises it.
FEW_FILES = ("sh", "-c", 'ulimit -S -n 300 && exec "$@"', "sh")


def test_500_requests_at_once_are_answered_or_refused_and_those_who_obey_all_get_through(tmp_path: Path) -> None:
    bounds = ("--max-backlog-jobs", "100", "--admission-wait", "0")
    with running(tmp_path / "data", "--workers", "2", "--engines", FAULTY, *bounds, under=FEW_FILES) as serving:
        wait_ready(serving, workers=2)
        with watched(serving) as vitals:
            first = asyncio.run(crowd(serving.url, blank_pdf(1), 500))
            second = asyncio.run(crowd(serving.url, blank_pdf(1), 500, obey=True))
        print(vitals.line)
        for seen in (first, second):
            assert seen.errors == seen.unclear == []
            assert set(seen.statuses) == {200, 429}
        assert sum(first.statuses.values()) == 500
        assert second.statuses[200] == len(second.latencies) == 500
        assert vitals.rss < MOST
        totals = serving.get("/status")["totals"]
        refused = first.statuses[429] + second.statuses[429]
        assert (totals["refused"], totals["failed"]) == (refused, 0)
        assert totals["completed"] == first.statuses[200] + 500
        assert list((serving.data / "incoming").iterdir()) == []
