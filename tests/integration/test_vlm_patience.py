"""Who waits for VLM servers that are gone: told in time, wherever it waits, and in nobody else's way."""

from __future__ import annotations

import asyncio
import base64
import io
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
from PIL import Image

from docfleet.vlm import breaker
from docfleet.vlm.records import EndpointState, Member, PoolSettings
from docfleet.vlm.router import Router, Unanswered
from docfleet.vlm.upstream import Reply
from tests.serving import free_port
from tests.vlm_house import Standin, standins

MEGABYTE = 1024 * 1024


def picture() -> str:
    sink = io.BytesIO()
    Image.new("L", (8, 8)).save(sink, "PNG")
    return base64.b64encode(sink.getvalue()).decode()


@asynccontextmanager
async def routing(members: list[str], allowed: tuple[str, ...] = (), patience: float = 60.0) -> AsyncIterator[Router]:
    settings = PoolSettings(patience=patience, check_interval=0.2, check_timeout=1.0)
    router = Router(settings, (*members, *allowed))
    router.declare([Member(url=url) for url in members])
    await router.start()
    try:
        yield router
    finally:
        await router.close()


async def ask(router: Router, *servers: str, megabytes: int = 1) -> Reply:
    """Send a layout request that says it is so large, to the pool or to these servers."""
    content = [
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{picture()}"}},
        {"type": "text", "text": "Layout Detection:"},
    ]
    body = json.dumps({"model": "docfleet", "messages": [{"role": "user", "content": content}]}).encode()

    async def read() -> bytes:
        return body

    return await router.send(frozenset(servers) or None, megabytes * MEGABYTE, read)


@pytest.fixture
def house() -> Iterator[Standin]:
    with standins(1, "--seconds", "0.01") as (one,):
        yield one


@pytest.fixture
def gone() -> str:
    return f"http://127.0.0.1:{free_port()}"


async def test_all_who_wait_for_servers_that_are_gone_are_told_when_patience_is_over_once(gone: str) -> None:
    async with routing([gone], patience=2.0) as router:
        begun = asyncio.get_running_loop().time()
        # Two at a time are taken in before they have a server; one lot after the other would take 12 s.
        told = await asyncio.gather(*(ask(router, megabytes=30) for _ in range(12)), return_exceptions=True)
        assert [type(one) for one in told] == [Unanswered] * 12
        assert asyncio.get_running_loop().time() - begun < 6
        assert router.waiting == 0


async def test_those_who_wait_for_a_named_server_that_is_gone_hold_nobody_else_up(house: Standin, gone: str) -> None:
    async with routing([house.url], allowed=(gone,)) as router:
        stuck = [asyncio.create_task(ask(router, gone, megabytes=8)) for _ in range(100)]
        try:
            async with asyncio.timeout(30):
                assert [(await ask(router, megabytes=8)).status for _ in range(20)] == [200] * 20
            assert not any(one.done() for one in stuck)
        finally:
            for one in stuck:
                one.cancel()
            await asyncio.gather(*stuck, return_exceptions=True)
        assert router.waiting == 0


async def test_a_server_that_is_well_when_asked_but_refuses_every_page_does_not_keep_pages_waiting(
    house: Standin, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It is tried again and again within the time that a page waits, as within the 120 s of the settings.
    monkeypatch.setattr(breaker, "_LONGEST_PAUSE", 0.5)
    house.behave(fault="401")
    async with routing([house.url], patience=2.0) as router:
        async with asyncio.timeout(30):
            with pytest.raises(Unanswered, match="it answered 401"):
                await ask(router)
        house.behave(fault="")
        async with asyncio.timeout(60):
            while router.rows()[0].state is EndpointState.DOWN:
                await asyncio.sleep(0.05)
        assert (await ask(router)).status == 200
