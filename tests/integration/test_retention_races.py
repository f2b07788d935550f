"""Results that go away while they are asked for, and while others are being made."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import requests

from docfleet.files import DataFolder
from docfleet.store.sqlite import SqliteStore, open_store
from docfleet.supervisor.sizes import keep_within
from docfleet.supervisor.tidying import retire_results
from tests.integration.web_house import PDF, House, open_house

#: What is asked of a job that has ended.
PATHS = ("", "/result", "/files/document.md", "/files/images/x.png")
#: Seconds for which it goes on at least, and at most until everything was met both there and gone.
_LEAST, _MOST = 1.0, 20.0


class Traffic:
    """Callers who send and fetch at once, and a broom."""

    def __init__(self, house: House, sweep: Callable[[], int]) -> None:
        self._house = house
        self._sweep = sweep
        self._newest: str | None = None
        self._over = threading.Event()
        #: By path and status, or what went wrong with the connection.
        self.seen: Counter[tuple[str, int | str]] = Counter()

    def run(self) -> None:
        threads = [threading.Thread(target=self._repeat, args=(lambda path=path: self._ask(path),)) for path in PATHS]
        threads += [
            threading.Thread(target=self._repeat, args=(work,)) for work in (self._send, self._send, self._clean)
        ]
        begun = time.monotonic()
        for thread in threads:
            thread.start()
        wanted = {(path, status) for path in PATHS for status in (200, 404)}
        while time.monotonic() < begun + _LEAST or (wanted - set(self.seen) and time.monotonic() < begun + _MOST):
            time.sleep(0.05)
        self._over.set()
        for thread in threads:
            thread.join()

    def _repeat(self, work: Callable[[], object]) -> None:
        while not self._over.is_set():
            work()

    def _send(self) -> None:
        answer = self._house.predict_files({"a.pdf": PDF})
        self.seen["predict", answer.status_code] += 1
        if answer.status_code == 200:
            self._newest = answer.json()["job_id"]

    def _clean(self) -> None:
        self._sweep()
        time.sleep(0.1)

    def _ask(self, path: str) -> None:
        if self._newest is None:
            time.sleep(0.01)
            return
        try:
            answer = self._house.get(f"/jobs/{self._newest}{path}")
        except requests.RequestException as exc:
            self.seen[path, repr(exc)] += 1
            return
        whole = not path.endswith(".md") or answer.status_code != 200 or answer.text.startswith("# a.pdf")
        self.seen[path, answer.status_code if whole else answer.text] += 1


def by_age(folder: DataFolder, store: SqliteStore) -> int:
    return retire_results(folder, store, 0.1)


def by_size(folder: DataFolder, store: SqliteStore) -> int:
    return keep_within(folder, store, 1)


@pytest.mark.parametrize("broom", [by_age, by_size])
def test_whatever_is_asked_for_while_results_are_removed_is_served_whole_or_not_found(
    tmp_path: Path, broom: Callable[[DataFolder, SqliteStore], int]
) -> None:
    with open_house(tmp_path / "data") as house, closing(open_store(house.doors.folder.database)) as store:
        traffic = Traffic(house, lambda: broom(house.doors.folder, store))
        traffic.run()
        allowed = {(path, status) for path in (*PATHS, "predict") for status in (200, 404)}
        assert set(traffic.seen) <= allowed, traffic.seen
        assert {200, 404} == {status for path, status in traffic.seen if path in PATHS}
