"""What the client shows of a run and of the server, as pure functions of what it knows."""

from __future__ import annotations

from typing import Any

import aiohttp
import pytest

import client
from client import Looks, MineruError, Outcome, Row, Server, Summary, server_lines
from tests.integration.client_server import progress_of


@pytest.fixture
async def looks() -> Any:
    async with aiohttp.ClientSession() as session:
        yield Looks(session, client.DEFAULT_URL, Server())


def server_of(looks: Looks) -> Server:
    return looks._server


def pages(server: Server) -> dict[str, tuple[int, int]]:
    return {row.name: (row.pages, row.failed) for row in server.rows}


def test_the_line_of_a_run_says_done_of_all_successes_failures_pages_speed_and_time_left() -> None:
    summary = Summary(total=8)
    for number in range(4):
        status = "failed" if number == 3 else "completed"
        summary.add(Outcome(source=f"{number}", status=status, pages=0 if number == 3 else 10))
    summary.seconds = 60.0
    assert summary.line == "4/8, 3 ok, 1 failed, 30 pages, 0.5 pages/s, 0:01:00 gone, 0:01:00 left"
    summary.refusals = 7
    assert "1 failed, 7 refusals, 30 pages" in summary.line


def test_time_left_is_unknown_before_anything_was_done_and_skipped_inputs_are_no_measure() -> None:
    summary = Summary(seconds=10.0)
    assert summary.seconds_left is None
    assert summary.line.startswith("0/?, 0 ok")
    assert summary.line.endswith("? left")
    summary.total = 10
    for number in range(5):
        summary.add(Outcome(source=f"{number}", status="skipped"))
    assert summary.seconds_left is None
    summary.add(Outcome(source="5", status="completed", pages=1))
    assert summary.seconds_left == 40.0
    assert Summary(total=1, succeeded=1, skipped=1).seconds_left == 0.0


async def test_rows_count_from_the_first_look(looks: Looks) -> None:
    looks.take(progress_of(100))
    assert pages(server_of(looks)) == {"cpu": (0, 0), "cuda:0": (0, 0), "10.0.0.5:8001": (0, 0)}
    looks.take(progress_of(130))
    looks.take(progress_of(131))
    assert pages(server_of(looks)) == {"cpu": (31, 0), "cuda:0": (31, 0), "10.0.0.5:8001": (31, 0)}


async def test_counts_that_begin_anew_are_added_and_those_that_outlive_the_server_are_not_counted_again(
    looks: Looks,
) -> None:
    looks.take(progress_of(100))
    looks.take(progress_of(110))
    # The server was started anew: devices go on counting, VLM servers begin at 0.
    anew = progress_of(112, since="2026-11-21T09:00:00+00:00")
    anew["endpoints"][0] |= {"pages_done": 5, "failures": 0}
    looks.take(anew)
    assert pages(server_of(looks)) == {"cpu": (12, 0), "cuda:0": (12, 0), "10.0.0.5:8001": (15, 0)}


async def test_a_device_that_is_not_used_is_no_row_unless_it_did_something(looks: Looks) -> None:
    once = {"device": "cuda:7", "workers": 0, "busy": 0, "pages_failed": 0}
    looks.take(progress_of(1, devices=[once | {"pages_done": 500}]))
    assert pages(server_of(looks)) == {"10.0.0.5:8001": (0, 0)}
    looks.take(progress_of(1, devices=[]))
    looks.take(progress_of(1, devices=[once | {"pages_done": 501}]))
    assert pages(server_of(looks)) == {"cuda:7": (1, 0), "10.0.0.5:8001": (0, 0)}


async def test_a_device_that_comes_late_goes_away_or_comes_back_is_counted_once(looks: Looks) -> None:
    looks.take(progress_of(100, devices=[]))
    looks.take(progress_of(100))
    assert pages(server_of(looks))["cpu"] == (100, 0)
    looks.take(progress_of(100, devices=[], endpoints=[]))
    assert [(row.name, row.doing) for row in server_of(looks).rows if row.kind == "device"] == [
        ("cpu", "gone"),
        ("cuda:0", "gone"),
    ]
    looks.take(progress_of(104))
    assert pages(server_of(looks)) == {"cpu": (104, 0), "cuda:0": (104, 2), "10.0.0.5:8001": (4, 0)}


@pytest.mark.parametrize("progress", [None, [], "far", 3])
async def test_a_server_that_does_not_tell_is_an_error_that_says_so(progress: object, looks: Looks) -> None:
    with pytest.raises(MineruError, match="does not tell"):
        looks.take(progress)
    assert server_lines(server_of(looks), 80, 10) == []


async def test_whatever_stands_in_the_answer_makes_rows_that_are_bounded_and_safe_to_show(looks: Looks) -> None:
    odd: list[Any] = [None, 1, [], {"device": ["x"] * 999}, {"device": "x", "pages_done": -5, "workers": "many"}]
    for turn in range(4):
        many = [
            {"device": f"{turn}:{number}\x1b[2J", "pages_done": 5, "workers": 2, "busy": 1e400}
            for number in range(5000)
        ]
        told = {"devices": [*odd, *many], "endpoints": {"url": "x"}, "documents": 7, "pages_per_second": float("inf")}
        looks.take(told)
    server = server_of(looks)
    assert len(server.rows) == client.ROWS
    assert all(len(row.name) <= 80 and row.pages in (0, 5) and "\x1b" not in row.name for row in server.rows)
    assert (server.running, server.waiting, server.pages_per_second) == (0, 0, 0.0)
    assert len(looks._totals or {}) <= 4 * client.ROWS
    assert len(server_lines(server, 80, 6)) == 6


async def test_a_password_in_an_address_is_not_shown(looks: Looks) -> None:
    looks.take({"endpoints": [{"url": "http://user:s3cret@10.0.0.5:8001", "state": "up"}]})
    assert [row.name for row in server_of(looks).rows] == ["10.0.0.5:8001"]


def rows(number: int) -> tuple[Row, ...]:
    return tuple(
        Row(kind="device", name=f"cuda:{one}", doing="1/2 busy", pages=1200 + one, failed=1, pages_per_second=2.25)
        for one in range(number)
    )


def test_the_rows_of_the_server_are_lines_of_the_same_shape() -> None:
    server = Server(rows=rows(2), running=3, waiting=40, pages_per_second=4.5)
    assert server_lines(server, 80, 10) == [
        "server: 3 documents running, 40 waiting, 4.5 pages/s",
        "  cuda:0    2.2/s   1,200 pages    1 failed  1/2 busy",
        "  cuda:1    2.2/s   1,201 pages    1 failed  1/2 busy",
    ]
    server.silent = 12.4
    assert server_lines(server, 80, 10)[0].endswith("(12 s ago)")


@pytest.mark.parametrize(("number", "most"), [(1, 2), (3, 4), (4, 4), (64, 12), (64, 1), (1, 0), (2, 2)])
def test_many_devices_are_summed_up_below_those_that_have_room(number: int, most: int) -> None:
    lines = server_lines(Server(rows=rows(number)), 80, most)
    assert len(lines) <= most
    if number + 1 > most > 1:
        assert lines[-1].startswith(f"  and {number - (most - 2)} more: ")
    elif most > 1:
        assert len(lines) == number + 1


@pytest.mark.parametrize("width", [1, 20, 40, 80, 200])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    long = Row(kind="endpoint", name="vlm." * 20, doing="3 under way, up", pages=1, failed=0, pages_per_second=1.0)
    for line in server_lines(Server(rows=(*rows(30), long)), width, 40):
        assert len(line) <= width


async def test_where_nobody_watches_a_line_says_how_the_run_and_each_device_stand(
    looks: Looks, capsys: pytest.CaptureFixture[str]
) -> None:
    looks.take(progress_of(1))
    looks.take(progress_of(4))
    summary, screen = Summary(total=2, server=server_of(looks)), client.Screen(live=False, keep=False)
    screen.show("", summary, None)
    assert capsys.readouterr().err == ""
    summary.seconds = 30.0
    screen.show("", summary, None)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(
        "[0/2, 0 ok, 0 failed, 0 pages, 0.0 pages/s, 0:00:30 gone, ? left] server: 2 documents running"
    )
    assert "; cpu 1.5/s 3 pages 0 failed 1/2 busy; cuda:0 1.5/s 3 pages 0 failed 1/1 busy; " in line


async def test_the_tries_of_the_default_outlast_a_server_that_is_started_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    slept = list[float]()

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    async def refused() -> None:
        raise MineruError("gone", "connection_failed", retryable=True)

    monkeypatch.setattr(client.asyncio, "sleep", sleep)
    for _ in range(50):
        slept.clear()
        with pytest.raises(MineruError):
            await client._persist(refused, client.Settings().retries, lambda _error, _delay: None)
        assert 30 <= sum(slept) <= 61
        assert len(set(slept)) == len(slept) == 6
