"""A storm of SIGKILLs over a real server at work, and what must be true after it.

Callers send documents with an Idempotency-Key and ask again when their connection breaks. Meanwhile workers, their
render children, the API process and the main process are killed at random moments; a server that has ended is started
again on the same data folder, as a service manager would.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import psutil
import requests

from docfleet.engine.interface import ParseRequest, Progress
from docfleet.errors import WorkerLost
from docfleet.options import Tier
from docfleet.process.identity import is_alive
from docfleet.records import ProcessIdentity
from tests.engines import FaultyEngine
from tests.serving import Serving, blank_pdf, free_port, start, stop, wait_ready

ENGINE = "tests.storm:StormEngine"
#: Names every process of the server under test, children of children included.
MARK = "DOCFLEET_TEST_STORM"
#: Draws pages for a worker, and outlives it if nobody ends it, as pools of render processes do.
_CHILD = "import sys, time\nfor line in sys.stdin: print(line, end='', flush=True)\ntime.sleep(3600)"
#: What is hit, and how often.
_VICTIMS = {"worker": 58, "child": 16, "api": 12, "main": 10, "inspector": 2, "manager": 2}
#: Seconds between two kills.
_PAUSE = (0.0, 0.7)


# --- the engine --------------------------------------------------------------------------------------------------


class StormEngine(FaultyEngine):
    """One line of Markdown a page. `children` draws each page with the help of a process of its own.

    Before it reads anything it looks into the store whether that was read and delivered before.
    """

    name: ClassVar[str] = "storm"
    _child: subprocess.Popen[str] | None = None

    def read_pages(self, request: ParseRequest, tier: Tier, part: Path, progress: Progress) -> None:
        _note_reading(request)
        super().read_pages(request, tier, part, progress)

    def _misbehave(self, request: ParseRequest) -> None:
        if "render" in request.filename:
            self._draw()
        super()._misbehave(request)

    def _draw(self) -> None:
        child = self._child
        if child is None or child.poll() is not None:
            pipe = subprocess.PIPE
            child = self._child = subprocess.Popen([sys.executable, "-c", _CHILD], stdin=pipe, stdout=pipe, text=True)
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            child.stdin.write("page\n")
            child.stdin.flush()
            answer = child.stdout.readline()
        except OSError:
            answer = ""
        if not answer:
            child.kill()
            child.wait()
            raise WorkerLost("A process that draws pages died.")


def _note_reading(request: ParseRequest) -> None:
    """Append to the log of what is read: job, pages, and how many of them had been delivered before."""
    root, job = request.source.parents[2], request.source.parent.name
    values = (job, request.last_page, request.first_page)
    with closing(sqlite3.connect(f"file:{root / 'docfleet.db'}?mode=ro", uri=True, timeout=30)) as database:
        ((done,),) = database.execute(
            "SELECT count(*) FROM shards JOIN jobs ON jobs.number = shards.job WHERE jobs.id = ? "
            "AND stage IN ('pages', 'whole') AND shards.state = 'done' AND first_page <= ? AND last_page >= ?",
            values,
        )
    with (root.parent / "readings.log").open("a") as log:
        log.write(f"{job} {request.first_page} {request.last_page} {done}\n")


# --- the documents -----------------------------------------------------------------------------------------------


@dataclass
class Order:
    """A document that a caller sends until it is accepted."""

    number: int
    name: str
    pages: int
    door: str
    job_id: str | None = None

    @cached_property
    def content(self) -> bytes:
        # Made once: asked again with other bytes, its key would be refused.
        return blank_pdf(self.pages)

    @property
    def expected(self) -> list[str]:
        lines = [f"page {page}" for page in range(self.pages)]
        return [*lines, f"digest {hashlib.sha256(chr(10).join(lines).encode()).hexdigest()}"]


def an_order(number: int, chance: random.Random) -> Order:
    """Some are cut into shards, some are one piece, some have render children; a few callers wait for the answer."""
    kind, pages = chance.choice([("cut-", 30), ("cut4-", 30), ("cut-render-", 24), ("", 8), ("render-", 6), ("", 1)])
    pause = chance.choice([0.05, 0.1, 0.2, 0.3])
    # 0.3 s a page would make long ones outlast the storm.
    pages = max(1, round(pages * min(1.0, 0.2 / pause)))
    name = f"{kind}sleep-{pause}-{number}.pdf"
    return Order(number, name, pages, chance.choice(["jobs", "jobs", "predict"]))


def lines_of(markdown: str) -> list[str]:
    return [line for line in markdown.split("\n\n") if line.startswith(("page ", "digest "))]


# --- the storm ---------------------------------------------------------------------------------------------------


@dataclass
class Storm:
    """One server under fire."""

    data: Path
    seed: int
    kills: int
    jobs: int
    callers: int = 4
    workers: int = 3
    hits: Counter[str] = field(default_factory=Counter)
    orders: list[Order] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    starts: int = 0

    def __post_init__(self) -> None:
        self._chance = random.Random(self.seed)
        self._port = free_port()
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._mark = f"{os.getpid()}-{self.seed}-{time.time()}"
        self.serving: Serving = self._start()
        wait_ready(self.serving)

    def run(self) -> None:
        """Send, kill, and wait until everything accepted has ended. Leaves a stopped server."""
        callers = [threading.Thread(target=self._call, daemon=True) for _ in range(self.callers)]
        for caller in callers:
            caller.start()
        try:
            while sum(self.hits.values()) < self.kills and not self.problems:
                if self._chance.random() < 0.8:
                    self._until_at_work()
                time.sleep(self._chance.uniform(*_PAUSE))
                self._strike()
            self._over.set()
            self._wait_for(lambda: not any(caller.is_alive() for caller in callers), "a caller was never answered")
            self._wait_for(lambda: self._open_jobs() == 0, "jobs did not end in time")
            self._check_answers()
            if self.serving.process.poll() is None and stop(self.serving) != 0:
                self.problems.append("the server did not end with status 0")
        finally:
            self._over.set()
            for process in self.family():
                with contextlib.suppress(psutil.Error):
                    process.kill()
                self.problems.append(f"left over: {process}")

    def family(self) -> list[psutil.Process]:
        """Every living process of any of this storm's servers, whoever its parent is now."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get(MARK) == self._mark and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    # --- the server

    def _start(self) -> Serving:
        self.starts += 1
        marked = {MARK: self._mark}
        arguments = ("--workers", str(self.workers), "--spares", "1", "--overcommit-cpu", "--engines", ENGINE)
        return start(self.data, *arguments, wait=False, port=self._port, **marked)

    def _strike(self) -> None:
        """Kill one process."""
        if self._start_again():
            return
        (kind,) = self._chance.choices(list(_VICTIMS), list(_VICTIMS.values()))
        alive = victims_of(self.serving)
        if alive.get("child") and self._chance.random() < 0.3:
            kind = "child"
        victims = alive.get(kind, [])
        # A server that has just begun has nothing else to hit: let it come to something now and then.
        if not victims or ("worker" not in alive and self._chance.random() < 0.8):
            return
        victim = self._chance.choice(victims)
        with contextlib.suppress(psutil.NoSuchProcess):
            victim.send_signal(signal.SIGKILL)
            self.hits[kind] += 1
            if kind == "main":
                self.serving.process.wait()
            if kind in ("main", "api", "manager"):
                self._expect_sound(f"{kind} was killed")

    def _until_at_work(self) -> None:
        """Wait until some worker reads: a kill that hits nothing but processes that start shows little."""
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and self.serving.process.poll() is None:
            with closing(
                sqlite3.connect(f"file:{self.data / 'docfleet.db'}?mode=ro", uri=True, timeout=30)
            ) as database:
                held = database.execute(
                    "SELECT owner_pid, owner_started FROM shards WHERE state = 'running'"
                ).fetchall()
            if any(is_alive(ProcessIdentity(pid=pid, started=started)) for pid, started in held):
                return
            time.sleep(0.02)

    def _start_again(self) -> bool:
        """Start a server that has ended, for whatever reason; return whether it had."""
        if (status := self.serving.process.poll()) is None:
            return False
        if status not in (1, -signal.SIGKILL):
            self.problems.append(f"the server ended with status {status}")
        self._expect_sound(f"ended with status {status}")
        self.serving = self._start()
        return True

    def _expect_sound(self, after: str) -> None:
        path = self.data / "docfleet.db"
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)) as database:
            found = database.execute("PRAGMA integrity_check").fetchall()
        if found != [("ok",)]:
            self.problems.append(f"{after}: {found}")

    # --- callers

    def _call(self) -> None:
        while (order := self._next_order()) is not None:
            while not self._send(order):
                time.sleep(0.2)
                if self.problems:
                    return

    def _next_order(self) -> Order | None:
        with self._lock:
            # The storm always has something to hit: there are more documents if it takes longer.
            if self.problems or (len(self.orders) >= self.jobs and self._over.is_set()):
                return None
            # No more at a time than the storm leaves time for.
            order = an_order(len(self.orders), self._chance_of(len(self.orders)))
            self.orders.append(order)
        while not self._over.is_set() and (self._open_jobs() or 0) > self.callers + self.workers:
            time.sleep(0.1)
        return order

    def _chance_of(self, number: int) -> random.Random:
        return random.Random(f"{self.seed} {number}")

    def _open_jobs(self) -> int | None:
        """Return how many jobs have not ended; None while nobody says."""
        with contextlib.suppress(requests.RequestException, ValueError):
            return int(requests.get(f"{self.serving.url}/status", timeout=5).json()["queue"]["backlog_jobs"])
        return None

    def _send(self, order: Order) -> bool:
        """Return whether the document was accepted; a caller whose connection broke asks again."""
        files = {"files": (order.name, order.content)}
        key = {"Idempotency-Key": f"{self.seed}-{order.number}"}
        try:
            answer = requests.post(f"{self.serving.url}/{order.door}", files=files, headers=key, timeout=60)
            body: dict[str, Any] = answer.json()
        except (requests.RequestException, ValueError):
            return False
        if answer.status_code == 200 and lines_of(body["markdown"]) != order.expected:
            self.problems.append(f"{order.name}: wrong answer {body}")
        if answer.status_code not in (200, 202):
            if not body["error"]["retryable"]:
                self.problems.append(f"{order.name}: {answer.status_code} {body}")
            return False
        order.job_id = body["job_id"]
        return True

    # --- after the storm

    def _wait_for(self, done: Callable[[], bool], otherwise: str) -> None:
        deadline = time.monotonic() + 300
        while not self.problems and not done():
            self._start_again()
            time.sleep(0.2)
            if time.monotonic() > deadline:
                self.problems.append(otherwise)

    def _check_answers(self) -> None:
        for order in self.orders:
            job = self.serving.get(f"/jobs/{order.job_id}")
            if job.get("state") != "completed":
                self.problems.append(f"{order.name}: {job}")
                continue
            result = self.serving.get(f"/jobs/{order.job_id}/result")
            if lines_of(result["markdown"]) != order.expected:
                self.problems.append(f"{order.name}: wrong result {result}")

    def report(self) -> str:
        """Return what happened, for people."""
        kinds = ", ".join(f"{number} {kind}" for kind, number in sorted(self.hits.items()))
        read, needed = pages_read(self.data.parent), sum(order.pages for order in self.orders)
        return (
            f"seed {self.seed}: {sum(self.hits.values())} kills ({kinds}), {self.starts} starts of the server, "
            f"{len(self.orders)} documents, {needed} pages, {read} begun to be read"
            + "".join(f"\n{problem}" for problem in self.problems + (self._open_rows() if self.problems else []))
        )

    def _open_rows(self) -> list[str]:
        """Return what the store says of work that has not ended, and of the workers."""
        open_jobs = "SELECT * FROM jobs WHERE finished_at IS NULL"
        open_shards = "SELECT * FROM shards WHERE job IN (SELECT number FROM jobs WHERE finished_at IS NULL)"
        with closing(sqlite3.connect(f"file:{self.data / 'docfleet.db'}?mode=ro", uri=True, timeout=30)) as database:
            database.row_factory = sqlite3.Row
            queries = (open_jobs, open_shards, "SELECT * FROM workers")
            return [f"{time.time()} {dict(row)}" for query in queries for row in database.execute(query)]


def victims_of(serving: Serving) -> dict[str, list[psutil.Process]]:
    """Return the living processes of the server by what they are."""
    found: dict[str, list[psutil.Process]] = {}
    with contextlib.suppress(psutil.Error):
        main = psutil.Process(serving.process.pid)
        found["main"] = [main]
        forked = []
        for process in main.children():
            with contextlib.suppress(psutil.Error):
                command = " ".join(process.cmdline())
                if "resource_tracker" in command:
                    continue
                if "spawn_main" in command:
                    found.setdefault("worker", []).append(process)
                    found.setdefault("child", []).extend(process.children(recursive=True))
                elif inspectors := [one for one in process.children() if "inspector_main" in " ".join(one.cmdline())]:
                    found.setdefault("api", []).append(process)
                    found.setdefault("inspector", []).extend(inspectors)
                else:
                    forked.append(process)
        if "api" in found:
            found["manager"] = forked
    return found


# --- what the disk says ------------------------------------------------------------------------------------------


def readings(folder: Path) -> Iterator[tuple[str, int, int, int]]:
    """Return job, first page, last page and the number of shards among them that had been delivered before."""
    log = folder / "readings.log"
    for line in log.read_text().splitlines() if log.exists() else []:
        if found := re.fullmatch(r"(\w{32}) (\d+) (\d+) (\d+)", line):
            yield found[1], int(found[2]), int(found[3]), int(found[4])


def pages_read(folder: Path) -> int:
    return sum(last - first + 1 for _, first, last, _ in readings(folder))


def rows(data: Path) -> list[tuple[str, str, str, str]]:
    """Return id, state, file name and result folder of every job."""
    with closing(sqlite3.connect(data / "docfleet.db")) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert database.execute("PRAGMA foreign_key_check").fetchall() == []
        return database.execute("SELECT id, state, filename, output FROM jobs ORDER BY number").fetchall()


def files_in(data: Path) -> set[str]:
    """Return every file and empty folder in the data folder, relative to it."""
    return {str(path.relative_to(data)) for path in data.rglob("*") if path.is_file() or not any(path.iterdir())}
