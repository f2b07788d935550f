"""Counts of traffic, sharing of a collection, and the text form, each by itself."""

from __future__ import annotations

import asyncio
import re
import runpy
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.types import Message, Receive, Scope, Send

from docfleet.metrics.catalogue import METRICS, Kind
from docfleet.metrics.exposition import Distribution, Sample, render
from docfleet.metrics.sharing import Shared
from docfleet.metrics.traffic import REQUEST_SECONDS, Answered, Traffic
from docfleet.web.counting import Counting
from docfleet.web.problems import ERROR_CODE

ROOT = Path(__file__).resolve().parents[2]


def answered(**more: object) -> Answered:
    values: dict[str, object] = {"method": "GET", "route": "/status", "status": 200, "seconds": 0.1}
    return Answered(**(values | more))  # type: ignore[arg-type]


def test_refusals_are_no_errors_and_each_is_counted_by_its_code() -> None:
    traffic = Traffic()
    for status, code in [
        (429, "busy"),
        (503, "not_ready"),
        (507, "storage_full"),
        (422, "broken_document"),
        (500, "x"),
    ]:
        traffic.begin()
        traffic.end(answered(status=status, code=code))
    counts = traffic.counts()
    assert counts.refusals == {"busy": 1, "not_ready": 1, "storage_full": 1}
    assert counts.errors == {"broken_document": 1, "x": 1}
    assert counts.requests == {("GET", "/status", "4xx"): 2, ("GET", "/status", "5xx"): 3}
    assert counts.in_progress == 0


def test_what_callers_make_up_is_one_label_whatever_it_is() -> None:
    traffic = Traffic()
    for number in range(500):
        traffic.begin()
        traffic.end(answered(method=f"BREW{number}", route=None, status=404, seconds=number))
    counts = traffic.counts()
    assert counts.requests == {("other", "other", "4xx"): 500}
    (durations,) = counts.durations
    assert sum(durations.counts) == 500
    assert len(durations.counts) == len(REQUEST_SECONDS) + 1


async def nothing() -> Message:
    raise AssertionError("nobody reads")


@pytest.mark.parametrize("fault", [RuntimeError, asyncio.CancelledError])
async def test_a_request_that_ends_with_an_exception_is_not_under_way_for_ever(fault: type[BaseException]) -> None:
    traffic = Traffic()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert traffic.counts().in_progress == 1
        raise fault

    async def send(message: Message) -> None:
        raise AssertionError("nobody answers")

    with pytest.raises(fault):
        await Counting(app, traffic)({"type": "http", "method": "GET", "path": "/x"}, nothing, send)
    counts = traffic.counts()
    assert (counts.in_progress, counts.requests) == (0, {("GET", "other", "none"): 1})


async def test_the_answer_s_status_and_the_error_s_code_are_counted_and_the_answer_is_left_alone() -> None:
    traffic, sent = Traffic(), list[Message]()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope[ERROR_CODE] = "busy"
        await send({"type": "http.response.start", "status": 429, "headers": []})
        await send({"type": "http.response.body", "body": b"later"})

    async def send(message: Message) -> None:
        sent.append(message)

    await Counting(app, traffic)({"type": "http", "method": "POST", "path": "/x"}, nothing, send)
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    assert traffic.counts().refusals == {"busy": 1}


class Maker:
    """Makes the numbers 1, 2, 3, ... when it is let."""

    def __init__(self) -> None:
        self.made = 0
        self.go = asyncio.Event()
        self.fault: Exception | None = None

    async def __call__(self) -> int:
        await self.go.wait()
        if self.fault is not None:
            raise self.fault
        self.made += 1
        return self.made


async def gather(ask: Callable[[], Awaitable[int]], number: int) -> list[asyncio.Task[int]]:
    async def one() -> int:
        return await ask()

    tasks = [asyncio.create_task(one()) for _ in range(number)]
    await asyncio.sleep(0)
    return tasks


async def test_many_who_ask_at_once_share_one_making_and_later_ones_do_while_it_is_fresh() -> None:
    maker, now = Maker(), [0.0]
    shared = Shared(maker, 1.0, clock=lambda: now[0])
    tasks = await gather(shared.get, 50)
    maker.go.set()
    assert await asyncio.gather(*tasks) == [1] * 50
    now[0] = 0.9
    assert await shared.get() == 1
    now[0] = 1.0
    assert await shared.get() == 2
    assert maker.made == 2


async def test_who_leaves_while_waiting_takes_it_from_nobody_else() -> None:
    maker = Maker()
    shared = Shared(maker, 1.0)
    first, second = await gather(shared.get, 2)
    first.cancel()
    await asyncio.sleep(0)
    maker.go.set()
    assert await second == 1
    assert first.cancelled()


async def test_a_failure_is_told_to_all_who_waited_and_the_next_one_tries_anew() -> None:
    maker = Maker()
    maker.fault = OSError("the disk is gone")
    maker.go.set()
    shared = Shared(maker, 1.0)
    told = await asyncio.gather(*(await gather(shared.get, 3)), return_exceptions=True)
    assert [type(one) for one in told] == [OSError] * 3
    maker.fault = None
    assert await shared.get() == 1


def test_numbers_come_back_as_they_were_told_whatever_is_in_their_labels() -> None:
    odd = 'http://a.example/"\\\n{}'
    text = render(
        [
            Sample("docfleet_vlm_endpoint_pages_total", 7, {"endpoint": odd}),
            Distribution(
                "docfleet_shard_duration_seconds", (0.5, 1.0), (1, 2, 3), 9.5, {"tier": "flash", "stage": "whole"}
            ),
        ]
    ).decode()
    read = {family.name: family for family in text_string_to_metric_families(text)}
    (pages,) = read["docfleet_vlm_endpoint_pages"].samples
    assert (pages.labels, pages.value) == ({"endpoint": odd}, 7)
    seconds = {
        (one.name.removeprefix("docfleet_shard_duration_seconds_"), one.labels.get("le")): one.value
        for one in read["docfleet_shard_duration_seconds"].samples
    }
    assert seconds == {
        ("bucket", "0.5"): 1,
        ("bucket", "1"): 3,
        ("bucket", "+Inf"): 6,
        ("count", None): 6,
        ("sum", None): 9.5,
    }


@pytest.mark.parametrize(
    "wrong", [Sample("docfleet_made_up", 1), Sample("docfleet_backlog_pages", 1, {"file": "a.pdf"})]
)
def test_what_the_catalogue_does_not_have_is_not_told(wrong: Sample) -> None:
    with pytest.raises(KeyError):
        render([wrong])


def test_names_follow_the_conventions() -> None:
    for name, metric in METRICS.items():
        assert name.startswith("docfleet_")
        assert name.endswith("_total") is (metric.kind is Kind.COUNTER), name
        assert metric.meaning
        assert not {"le", "quantile", "path", "filename", "job_id"} & set(metric.labels), name


def test_the_page_of_metrics_is_what_the_catalogue_says() -> None:
    renew = runpy.run_path(str(ROOT / "docs" / "readme.py"))["renew_metrics"]
    page = (ROOT / "docs" / "metrics.md").read_text()
    assert renew(page) == page
    for name in METRICS:
        assert f"| `{name}` |" in page


@pytest.mark.parametrize("page", ["docs/metrics.md", "docs/design.md", "README.md"])
def test_what_pages_say_of_metrics_exists(page: str) -> None:
    named = set(re.findall(r"\bdocfleet_[a-z_]+", (ROOT / page).read_text()))
    parts = {f"{name}_bucket" for name, metric in METRICS.items() if metric.kind is Kind.HISTOGRAM}
    assert named <= {*METRICS, *parts}


def test_workers_never_load_the_library_of_prometheus() -> None:
    code = "import sys, server; sys.exit('prometheus_client' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
