"""Many requests at once over real sockets, and what the server is like meanwhile. For tests and benchmarks."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import statistics
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event

import aiohttp
import psutil
import requests

from tests.serving import Serving


@dataclass
class Seen:
    """What callers saw. Times are seconds; a request that was sent again counts as one from its first try."""

    statuses: Counter[int] = field(default_factory=Counter)
    #: Refusals whose Retry-After is not a whole number of seconds, or whose message does not say why.
    unclear: list[str] = field(default_factory=list)
    #: Requests that got no answer at all.
    errors: list[str] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)

    def percentile(self, share: float) -> float:
        """Return the latency that so large a share of the answered requests did not exceed; 0 if there were none."""
        return sorted(self.latencies)[int((len(self.latencies) - 1) * share)] if self.latencies else 0.0


@dataclass
class Vitals:
    """What the server was like: `/livez` in seconds as asked by another process, resident bytes of the API process."""

    livez: list[float] = field(default_factory=list)
    rss: int = 0

    @property
    def line(self) -> str:
        """The figures for people."""
        if not self.livez:
            return "nothing measured"
        worst, middle = max(self.livez) * 1e3, statistics.median(self.livez) * 1e3
        return (
            f"/livez worst {worst:.0f} ms, median {middle:.0f} ms of {len(self.livez)}; API {self.rss / 2**20:.0f} MB"
        )


async def crowd(url: str, content: bytes, number: int, *, name: str = "sleep-0.01-{}.pdf", obey: bool = False) -> Seen:
    """Send `number` requests to /predict at once.

    Args:
        url: of the server.
        content: of every document.
        number: of requests.
        name: of the documents; each gets its own number.
        obey: whether those who are refused come back after the time they are told, until they are let in.
    """
    seen = Seen()
    timeout = aiohttp.ClientTimeout(total=600)
    # Who waits for his turn must not come back on a connection that the server, after 5 idle seconds, has just closed.
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=2)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        await asyncio.gather(*(_one(session, url, content, name.format(one), obey, seen) for one in range(number)))
    return seen


async def _one(session: aiohttp.ClientSession, url: str, content: bytes, name: str, obey: bool, seen: Seen) -> None:
    started = time.monotonic()
    headers = {"Content-Type": "application/pdf"}
    while True:
        try:
            address = f"{url}/predict"
            async with session.post(address, params={"filename": name}, data=content, headers=headers) as response:
                text = await response.text()
                status, after = response.status, response.headers.get("Retry-After", "")
        except (aiohttp.ClientError, TimeoutError, OSError) as exc:
            seen.errors.append(f"{type(exc).__name__}: {exc}")
            return
        seen.statuses[status] += 1
        if status == 429 and (not after.isdecimal() or "too many concurrent documents (max " not in text):
            seen.unclear.append(f"Retry-After {after!r}: {text[:200]}")
            return
        if status != 429 or not obey:
            seen.latencies.append(time.monotonic() - started)
            return
        await asyncio.sleep(int(after))


@contextlib.contextmanager
def watched(serving: Serving) -> Iterator[Vitals]:
    """Watch the server meanwhile: ask /livez from a process of its own, sample the API process's memory."""
    vitals, stop = Vitals(), threading.Event()
    context = multiprocessing.get_context("spawn")
    ended, (source, sink) = context.Event(), context.Pipe(duplex=False)
    prober = context.Process(target=_probe, args=(serving.url, ended, sink), daemon=True)
    prober.start()
    # It says when it has begun: starting takes a second.
    source.recv()
    api = serving.api()
    sampler = threading.Thread(target=_sample, args=(api, vitals, stop), daemon=True)
    sampler.start()
    try:
        yield vitals
    finally:
        stop.set()
        ended.set()
        vitals.livez = source.recv()
        sampler.join()
        prober.join()


def _probe(url: str, ended: Event, sink: Connection) -> None:
    sink.send("begun")
    found: list[float] = []
    with requests.Session() as session:
        while not ended.is_set() or not found:
            started = time.perf_counter()
            session.get(f"{url}/livez", timeout=60).raise_for_status()
            found.append(time.perf_counter() - started)
            time.sleep(0.02)
    sink.send(found)


def _sample(api: psutil.Process, vitals: Vitals, stop: threading.Event) -> None:
    while not stop.wait(0.02):
        vitals.rss = max(vitals.rss, api.memory_info().rss)


def padded_pdf(content: bytes, size: int) -> bytes:
    """Return the PDF with a comment of `size` bytes in it."""
    place = content.rindex(b"xref", 0, content.rindex(b"startxref"))
    head, tail = content[:place], content[place:]
    comment = b"%" + b"x" * (size - 2) + b"\n"
    before, _, after = tail.rpartition(b"startxref")
    number, _, rest = after.lstrip().partition(b"\n")
    return head + comment + before + b"startxref\n%d\n" % (int(number) + size) + rest
