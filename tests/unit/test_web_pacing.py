"""How a crowd of requests comes in."""

from __future__ import annotations

import asyncio
from typing import Any

from docfleet.web.pacing import Pacing


class Door:
    def __init__(self) -> None:
        self.begun: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.begun.append(scope["path"])


def request(pacing: Pacing, path: str, method: str = "POST") -> asyncio.Task[None]:
    return asyncio.ensure_future(pacing({"type": "http", "method": method, "path": path}, None, None))  # type: ignore[arg-type]


async def test_a_crowd_is_begun_in_its_order_and_a_probe_before_most_of_it() -> None:
    door = Door()
    pacing = Pacing(door)
    crowd = [request(pacing, str(number)) for number in range(500)]
    await asyncio.sleep(0)
    probe = request(pacing, "livez", "GET")
    await asyncio.gather(*crowd, probe)
    assert [path for path in door.begun if path != "livez"] == [str(number) for number in range(500)]
    assert door.begun.index("livez") < 50


async def test_those_who_leave_while_they_wait_keep_nobody_back_and_later_ones_come_in() -> None:
    door = Door()
    pacing = Pacing(door)
    crowd = [request(pacing, str(number)) for number in range(100)]
    await asyncio.sleep(0)
    for task in crowd[50:60]:
        task.cancel()
    await asyncio.gather(*crowd, return_exceptions=True)
    assert len(door.begun) == 90
    await request(pacing, "later")
    assert door.begun[-1] == "later"


async def test_what_is_no_request_passes() -> None:
    door = Door()
    await Pacing(door)({"type": "lifespan", "path": "life"}, None, None)  # type: ignore[arg-type]
    assert door.begun == ["life"]
