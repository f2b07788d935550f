"""The API process's own life with a card that fills up: a fake driver, real child process, chores, store."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from docfleet.devices import Accelerator, Kind
from docfleet.files import DataFolder
from docfleet.host.life import ApiLife
from docfleet.process.identity import identify
from docfleet.records import WorkerReport, WorkerSlot, WorkerState
from docfleet.settings import resolve
from docfleet.store.sqlite import open_store

FAKE = Path(__file__).resolve().parents[1] / "fake_nvml"
CARD = Accelerator(kind=Kind.CUDA, index=0, name="NVIDIA Fake", pin="0", uuid="GPU-0")


@pytest.fixture(autouse=True)
def _signals() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


async def until(found: Callable[[], Any], seconds: float = 60) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < deadline, "it did not come to that"
        await asyncio.sleep(0.02)
    return value


async def test_workers_rest_while_another_program_fills_their_card_and_go_on_when_it_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = tmp_path / "nvml.json"

    def say(free: int, **more: Any) -> None:
        draft = state.with_suffix(".new")
        draft.write_text(json.dumps({"cards": [{"total": 24576, "free": free, "load": 12}], **more}))
        draft.replace(state)

    say(20000)
    monkeypatch.setenv("PYTHONPATH", str(FAKE))
    monkeypatch.setenv("FAKE_NVML", str(state))
    folder = DataFolder(tmp_path / "data")
    folder.create()
    slot = WorkerSlot(index=0, device="cuda:0")
    settings = resolve({"data_dir": folder.root, "sample_seconds": 0.1, "rest_below_device_mb": 1000}, {}).settings
    life = ApiLife(settings=settings, folder=folder, slots=(slot,), facts={}, accelerators=(CARD,))
    with open_store(folder.database) as store:
        store.announce(WorkerReport(slot=0, identity=identify(), device="cuda:0", state=WorkerState.READY))
        # From a run that was killed.
        store.rest({0: "of old"}, 600)
        async with life(FastAPI()):
            await until(lambda: store.resting(0) is None)
            say(300)
            reason = await until(lambda: store.resting(0))
            assert "less than 1000 MB of the memory of cuda:0" in reason
            say(20000)
            await until(lambda: store.resting(0) is None)
            say(300, fault="lost")
            await asyncio.sleep(0.5)
            assert store.resting(0) is None, "a driver that fails stops nobody"
