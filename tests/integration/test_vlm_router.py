"""MinerU's own client, through the router's own process, to VLM servers that misbehave."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import random
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import psutil
import pytest
from PIL import Image

from docfleet.addresses import address_id, to_segment
from docfleet.engine.mineru.late_pool import LatePool
from docfleet.errors import Forbidden, InvalidOption, NotFound
from docfleet.vlm.gate import open_gate
from docfleet.vlm.keeper import Keeper
from docfleet.vlm.planning import PoolPlan
from docfleet.vlm.records import Member, PoolSettings
from tests.serving import free_port
from tests.vlm_house import TEXT, Standin, standins

#: Short times, so that tests need not wait long; no test depends on how short.
QUICK = {"check_interval": 0.2, "check_timeout": 1.0}


@asynccontextmanager
async def routing(
    houses: list[Standin], *, keys: tuple[str, ...] = (), allowed: tuple[str, ...] = (), **settings: Any
) -> AsyncIterator[tuple[Keeper, PoolPlan]]:
    members = tuple(Member(url=house.url, key=keys[number] if keys else "") for number, house in enumerate(houses))
    plan = PoolPlan(
        gate=open_gate(),
        members=members,
        allowed=(*(member.url for member in members), *allowed),
        settings=PoolSettings(**(QUICK | settings)),
        log_level="debug",
    )
    keeper = Keeper(plan)
    await keeper.start()
    try:
        yield keeper, plan
    finally:
        await keeper.close()
        plan.gate.listening.close()


async def read_pages(url: str, pages: int) -> list[str]:
    """Have MinerU's client read empty pages. Return the text of each."""
    return await asyncio.to_thread(_read_pages, url, pages)


def _read_pages(url: str, pages: int) -> list[str]:
    from mineru_vl_utils import MinerUClient

    client = MinerUClient(backend="http-client", server_url=url + "/", use_tqdm=False)
    made = client.batch_two_step_extract([Image.new("RGB", (120, 160), "white")] * pages)
    return ["\n".join(block["content"] for block in page) for page in made]


@asynccontextmanager
async def going_on_reading(url: str) -> AsyncIterator[None]:
    """Have pages read again and again meanwhile, none of which may fail."""
    over = False

    async def read() -> None:
        while not over:
            assert await read_pages(url, 12) == [TEXT] * 12

    reading = asyncio.create_task(read())
    try:
        yield
    finally:
        over = True
        await reading


async def rows(keeper: Keeper) -> dict[str, dict[str, Any]]:
    state = await keeper.state()
    return {row["url"]: row for row in state["endpoints"]} if state else {}


async def until(condition: Any, seconds: float = 60) -> Any:
    async with asyncio.timeout(seconds):
        while not (found := await condition()):
            await asyncio.sleep(0.05)
    return found


async def all_up(keeper: Keeper, number: int) -> bool:
    return [row["state"] for row in (await rows(keeper)).values()].count("up") == number


@pytest.fixture(scope="module")
def pair() -> Iterator[list[Standin]]:
    with standins(2, "--slots", "4") as houses:
        yield houses


@pytest.fixture
def two(pair: list[Standin]) -> list[Standin]:
    """Two servers that read four pages at once, 0.05 s each."""
    for house in pair:
        house.afresh(0.05)
    return pair


async def test_mineru_reads_pages_over_four_servers_each_with_its_own_model_and_key() -> None:
    each = [("--key", f"hush-{number}") for number in range(4)]
    with standins(4, "--seconds", "0.1", each=each) as houses:
        keys = tuple(f"hush-{number}" for number in range(4))
        async with routing(houses, keys=keys) as (keeper, plan):
            await until(lambda: all_up(keeper, 4))
            assert await read_pages(plan.gate.pool_url, 16) == [TEXT] * 16
            told = await rows(keeper)
        for number, house in enumerate(houses):
            seen = house.seen()
            assert seen["refused"] == []
            assert seen["pages"] >= 2
            assert set(seen["keys"]) == {f"Bearer hush-{number}"}
        assert sum(row["done"] for row in told.values()) == 32
        assert all(row["has_key"] and "hush" not in json.dumps(row) for row in told.values())


@pytest.mark.parametrize("fault", ["429", "500", "503", "302", "garbage", "reset"])
async def test_a_page_that_one_server_fails_at_is_read_by_another(two: list[Standin], fault: str) -> None:
    bad, good = two
    async with routing(two) as (keeper, plan):
        await until(lambda: all_up(keeper, 2))
        bad.behave(fault=fault, retry_after="1")
        assert await read_pages(plan.gate.pool_url, 12) == [TEXT] * 12
        row = (await rows(keeper))[bad.url]
        assert bad.seen()["asked"] >= 1
        assert good.seen()["pages"] == 12
        # Too much to do is no failure.
        assert (row["failed"] == 0) == (fault in ("429", "503"))
        bad.behave(fault="")

        async def share_again() -> bool:
            await read_pages(plan.gate.pool_url, 4)
            return int(bad.seen()["pages"]) > 0

        await until(share_again)


async def test_a_server_that_hangs_over_a_page_is_left_after_its_time_limit(two: list[Standin]) -> None:
    async with routing(two, timeout=1.0) as (keeper, plan):
        await until(lambda: all_up(keeper, 2))
        two[0].behave(fault="hang")
        assert await read_pages(plan.gate.pool_url, 6) == [TEXT] * 6
        assert (await rows(keeper))[two[0].url]["failed"] >= 1
        # The other end of what was given up was closed: it does not go on computing.
        await until(lambda: asyncio.to_thread(lambda: two[0].seen()["at_once"] == 0))


async def test_a_server_that_stops_dead_loses_its_pages_to_others_long_before_the_time_limit(
    two: list[Standin],
) -> None:
    async with routing(two, timeout=3600.0, check_timeout=0.5) as (keeper, plan):
        await until(lambda: all_up(keeper, 2))
        two[0].behave(seconds=3600)
        reading = asyncio.create_task(read_pages(plan.gate.pool_url, 12))
        await until(lambda: asyncio.to_thread(lambda: two[0].seen()["at_once"] > 0))
        assert two[0].process is not None
        two[0].process.send_signal(signal.SIGSTOP)
        assert await reading == [TEXT] * 12
        assert (await rows(keeper))[two[0].url]["state"] == "down"


async def test_a_killed_server_that_returns_gets_its_share_again_and_no_page_is_lost(two: list[Standin]) -> None:
    async with routing(two) as (keeper, plan):
        await until(lambda: all_up(keeper, 2))

        async def is_down() -> bool:
            return (await rows(keeper))[two[0].url]["state"] == "down"

        async with going_on_reading(plan.gate.pool_url):
            await until(lambda: asyncio.to_thread(lambda: two[0].seen()["pages"] > 3))
            two[0].kill()
            await until(is_down)
            two[0].begin()
            await asyncio.to_thread(two[0].wait)
            await until(lambda: asyncio.to_thread(lambda: two[0].seen()["pages"] > 3))


async def test_a_killed_router_is_started_again_and_no_page_is_lost(two: list[Standin]) -> None:
    async with routing(two) as (keeper, plan):
        await until(lambda: all_up(keeper, 2))
        async with going_on_reading(plan.gate.pool_url):
            await until(lambda: asyncio.to_thread(lambda: two[0].seen()["pages"] > 3))
            (router,) = routers()
            router.kill()
            await until(lambda: all_up(keeper, 2))
            before = two[0].seen()["pages"]
            await until(lambda: asyncio.to_thread(lambda: two[0].seen()["pages"] > before))
            (again,) = routers()
            assert again.pid != router.pid
    assert routers() == []


def routers() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if "docfleet.vlm.main" in " ".join(child.cmdline())]


async def test_without_any_server_alive_a_page_waits_and_is_then_told_why() -> None:
    gone = Standin(free_port())
    async with routing([gone], patience=1.0) as (_, plan):
        with pytest.raises(Exception, match=r"424.*cannot be reached") as caught:
            await read_pages(plan.gate.pool_url, 1)
        assert "HttpResponseError" in type(caught.value).__name__


async def test_a_page_that_no_server_can_read_is_refused_and_the_servers_stay(two: list[Standin]) -> None:
    async with routing(two) as (keeper, plan):
        await until(lambda: all_up(keeper, 2))
        for house in two:
            house.behave(fault="400")
        with pytest.raises(Exception, match=r"\[400\].*a fault on purpose"):
            await read_pages(plan.gate.pool_url, 1)
        assert [row["state"] for row in (await rows(keeper)).values()] == ["up", "up"]


async def test_servers_are_added_and_drained_while_pages_are_read(two: list[Standin]) -> None:
    with standins(1, "--seconds", "0.05") as (third,):
        async with routing(two, allowed=(third.url,)) as (keeper, plan):
            await until(lambda: all_up(keeper, 2))
            await keeper.add(third.url + "/v1/", None)
            await until(lambda: all_up(keeper, 3))

            async def is_gone() -> bool:
                return two[0].url not in await rows(keeper)

            async with going_on_reading(plan.gate.pool_url):
                await until(lambda: asyncio.to_thread(lambda: third.seen()["pages"] > 0))
                await keeper.drain(address_id(two[0].url))
                await until(is_gone)
                before = two[0].seen()["asked"]
            assert await read_pages(plan.gate.pool_url, 6) == [TEXT] * 6
            assert two[0].seen()["asked"] == before
            await keeper.add(two[0].url, None)
            await until(lambda: all_up(keeper, 3))
            with pytest.raises(NotFound):
                await keeper.drain("000000000000")
            with pytest.raises(Forbidden):
                await keeper.add("http://169.254.169.254", None)
            with pytest.raises(InvalidOption):
                await keeper.add("http://u:hush@a", None)


async def test_in_serial_mode_one_request_is_under_way_over_all_servers(two: list[Standin]) -> None:
    async with routing(two, serial=True) as (keeper, plan):
        await until(lambda: all_up(keeper, 2))
        reading = asyncio.create_task(read_pages(plan.gate.pool_url, 8))
        looks = 0
        while not reading.done():
            looks += 1
            assert sum(row["in_flight"] for row in (await rows(keeper)).values()) <= 1
        assert await reading == [TEXT] * 8
        assert looks > 3
        assert max(house.seen()["most_at_once"] for house in two) == 1


async def test_requests_of_all_kinds_take_turns_as_they_came(two: list[Standin]) -> None:
    for house in two:
        house.behave(seconds=0.3)
    ended: list[int] = []
    async with routing(two, serial=True) as (keeper, plan), aiohttp.ClientSession() as session:
        await until(lambda: all_up(keeper, 2))

        async def send(number: int, prompt: str) -> None:
            told = {"model": "docfleet", "messages": [{"role": "user", "content": _asked(prompt=prompt)}]}
            async with session.post(f"{plan.gate.pool_url}/v1/chat/completions", json=told) as response:
                assert response.status == 200
            ended.append(number)

        sending = []
        for number in range(12):
            prompt = "Text Recognition:" if number in (2, 7, 8) else "Layout Detection:"
            sending.append(asyncio.create_task(send(number, prompt)))
            await until(lambda: waiting_or_sent(keeper, len(sending) - len(ended)))
        await asyncio.gather(*sending)
    assert ended == list(range(12))


async def waiting_or_sent(keeper: Keeper, count: int) -> bool:
    state = await keeper.state()
    assert state is not None
    return bool(state["waiting"] + sum(row["in_flight"] for row in state["endpoints"]) >= count)


async def test_a_server_that_a_caller_names_is_used_for_that_caller_without_the_key_of_another(
    two: list[Standin],
) -> None:
    member, guest = two
    async with routing([member], keys=("hush",), allowed=(guest.url,)) as (keeper, plan):
        await until(lambda: all_up(keeper, 1))
        assert await read_pages(f"{plan.gate.url}/{to_segment([guest.url])}", 4) == [TEXT] * 4
        assert guest.seen()["pages"] == 4
        assert set(guest.seen()["keys"]) == {""}
        assert member.seen()["pages"] == 0
        assert (await rows(keeper))[guest.url]["pooled"] is False


async def test_nothing_is_fetched_that_the_settings_do_not_allow_whoever_asks(two: list[Standin]) -> None:
    member, stranger = two
    async with routing([member]) as (keeper, plan), aiohttp.ClientSession() as session:
        await until(lambda: all_up(keeper, 1))
        path = "v1/chat/completions"
        async with session.post(f"{plan.gate.url}/{to_segment([stranger.url])}/{path}", data=b"{}") as response:
            assert response.status == 403
        base = plan.gate.url.rpartition("/")[0]
        for segment in ("guess", plan.gate.token[:-1], ""):
            async with session.post(f"{base}/{segment}/pool/{path}", data=b"{}") as response:
                assert response.status == 404
            async with session.get(f"{base}/{segment}/status") as response:
                assert response.status == 404
        assert stranger.seen()["keys"] == []


async def test_a_caller_that_leaves_frees_its_place_and_the_servers_time(two: list[Standin]) -> None:
    house = two[0]
    house.behave(fault="hang")
    async with routing([house]) as (keeper, plan):
        await until(lambda: all_up(keeper, 1))
        told = json.dumps({"model": "docfleet", "messages": [{"role": "user", "content": _asked()}]}).encode()
        head = f"POST /{plan.gate.token}/pool/v1/chat/completions HTTP/1.1\r\nHost: x\r\n"
        # By hand: a client library would end the request in better order than a killed worker does.
        with socket.create_connection(("127.0.0.1", plan.gate.listening.getsockname()[1])) as caller:
            caller.sendall(f"{head}Content-Length: {len(told)}\r\n\r\n".encode() + told)
            await until(lambda: asyncio.to_thread(lambda: house.seen()["at_once"] == 1))
            assert (await rows(keeper))[house.url]["in_flight"] == 1

        async def free() -> bool:
            return not (await rows(keeper))[house.url]["in_flight"]

        await until(free)
        await until(lambda: asyncio.to_thread(lambda: house.seen()["at_once"] == 0))


async def test_many_large_requests_at_once_take_little_memory(two: list[Standin]) -> None:
    noise = Image.frombytes("RGB", (1000, 700), random.Random(1).randbytes(2_100_000))
    told = json.dumps({"model": "docfleet", "messages": [{"role": "user", "content": _asked(noise)}]}).encode()
    requests_, peak = 100, 0
    assert len(told) > 2.5e6
    async with routing(two) as (keeper, plan), aiohttp.ClientSession() as session:
        await until(lambda: all_up(keeper, 2))
        (router,) = routers()

        async def send() -> int:
            async with session.post(f"{plan.gate.pool_url}/v1/chat/completions", data=told) as response:
                return response.status

        sending = asyncio.gather(*(send() for _ in range(requests_)))
        while not sending.done():
            peak = max(peak, router.memory_info().rss)
            await asyncio.sleep(0.02)
        assert await sending == [200] * requests_
    # All of them at once would be 280 MB, and what connections keep of their last requests as much again.
    assert peak < 250e6


def _asked(picture: Image.Image | None = None, prompt: str = "Text Recognition:") -> list[dict[str, Any]]:
    sink = io.BytesIO()
    (picture or Image.new("RGB", (32, 32), "white")).save(sink, "PNG")
    data = base64.b64encode(sink.getvalue()).decode()
    return [
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}},
        {"type": "text", "text": prompt},
    ]


async def test_keys_are_in_no_log_no_list_of_processes_and_no_answer(
    two: list[Standin], capfd: pytest.CaptureFixture[str]
) -> None:
    two[0].behave(key="another")
    async with routing(two, keys=("hush-1", "hush-2")) as (keeper, plan):

        async def told() -> bool:
            return (await rows(keeper)).get(two[0].url, {}).get("state") == "down"

        await until(told)
        assert await read_pages(plan.gate.pool_url, 2) == [TEXT] * 2
        shown = json.dumps(await keeper.state())
        (router,) = routers()
        shown += " ".join(router.cmdline()) + json.dumps(router.environ())
    assert "401" in shown
    captured = capfd.readouterr()
    assert "hush" not in shown + captured.out + captured.err


async def test_a_worker_of_a_server_without_a_pool_finds_what_is_added_and_misses_what_is_drained(
    two: list[Standin], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    (house, _) = two
    async with routing([], allowed=(house.url,)) as (keeper, plan):
        pool = LatePool(plan.gate.url)

        async def found(url: str | None) -> bool:
            return await asyncio.to_thread(lambda: pool.url) == url

        await until(lambda: all_up(keeper, 0))
        assert await found(None)
        added = await keeper.add(house.url, None)
        await until(lambda: found(plan.gate.pool_url))
        for router in routers():
            router.kill()
        assert await found(plan.gate.pool_url)
        await keeper.drain(added)
        await until(lambda: found(None))


async def test_a_server_that_only_a_caller_named_makes_no_pool(two: list[Standin]) -> None:
    (house, _) = two
    async with routing([], allowed=(house.url,)) as (keeper, plan):
        named = f"{plan.gate.url}/{to_segment((house.url,))}"
        assert await read_pages(named, 1) == [TEXT]
        assert house.url in await rows(keeper)
        assert await asyncio.to_thread(lambda: LatePool(plan.gate.url).url) is None
