"""The processes that look at documents: real ones, with real signals."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from PIL import Image

from docfleet.documents.inspection import Inspection
from docfleet.errors import BrokenDocument, EncryptedDocument, HostileDocument, InternalError, NotReady
from docfleet.intake import inspector as inspecting
from docfleet.intake.inspector import Inspector
from tests import made_documents as made

ROOT = Path(__file__).resolve().parents[2]


@asynccontextmanager
async def running(**settings: Any) -> AsyncIterator[Inspector]:
    inspector = Inspector(**settings)
    await inspector.start()
    processes = children(inspector)
    try:
        yield inspector
    finally:
        await inspector.close()
        assert not [process for process in processes if process.is_running()]


def children(inspector: Inspector) -> list[psutil.Process]:
    pids = [child._process.pid for child in inspector._children if child._process is not None]
    return [psutil.Process(pid) for pid in pids]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.fixture
def document(tmp_path: Path) -> Path:
    path = tmp_path / "upload.part"
    path.write_bytes(made.pdf(3))
    return path


THREE_PAGES = Inspection(suffix="pdf", pages=3)


async def test_documents_are_looked_at_in_the_same_processes_again_and_again(document: Path, tmp_path: Path) -> None:
    async with running(processes=2) as inspector:
        before = children(inspector)
        assert len(before) == 2
        paths = []
        for pages in range(1, 21):
            paths.append(tmp_path / f"{pages}.part")
            paths[-1].write_bytes(made.pdf(pages))
        found = await asyncio.gather(*(inspector.inspect(path, "x") for path in paths))
        assert [one.pages for one in found] == list(range(1, 21))
        assert children(inspector) == before


async def test_an_error_of_the_document_comes_back_as_itself(tmp_path: Path) -> None:
    path = tmp_path / "upload.part"
    path.write_bytes(made.pdf(password="secret"))
    async with running(processes=1) as inspector:
        with pytest.raises(EncryptedDocument, match="password"):
            await inspector.inspect(path, "half \ud800 a name\n.pdf")


async def test_what_libraries_print_over_a_document_reaches_neither_the_answers_nor_the_log(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    image = Image.effect_noise((40, 30), 50)
    image.save(tmp_path / "a.tiff", compression="tiff_adobe_deflate")
    content = bytearray((tmp_path / "a.tiff").read_bytes())
    # The decoder complains of this on standard error.
    content[8:200] = b"\xff" * 192
    (tmp_path / "a.tiff").write_bytes(content)
    async with running(processes=1) as inspector:
        with pytest.raises(BrokenDocument):
            await inspector.inspect(tmp_path / "a.tiff", "a.tiff")
    assert capfd.readouterr() == ("", "")


async def test_a_document_that_hangs_its_reader_is_given_up_and_the_next_one_is_read(document: Path) -> None:
    async with running(processes=1, timeout=0.3) as inspector:
        (stuck,) = children(inspector)
        stuck.suspend()
        with pytest.raises(HostileDocument, match="longer than"):
            await inspector.inspect(document, "x.pdf")
        await until(lambda: not stuck.is_running())
        inspector._children[0]._timeout = 20
        assert await inspector.inspect(document, "x.pdf") == THREE_PAGES


async def test_a_process_that_is_killed_between_two_documents_costs_neither(document: Path) -> None:
    async with running(processes=1) as inspector:
        (victim,) = children(inspector)
        victim.kill()
        assert await inspector.inspect(document, "x.pdf") == THREE_PAGES
        assert children(inspector) != [victim]


async def test_a_process_that_is_killed_over_a_document_gives_it_a_second_chance(document: Path) -> None:
    async with running(processes=1) as inspector:
        (victim,) = children(inspector)
        victim.suspend()
        asking = asyncio.ensure_future(inspector.inspect(document, "x.pdf"))
        await asyncio.sleep(0.05)
        assert not asking.done()
        victim.kill()
        assert await asking == THREE_PAGES


async def test_a_document_that_crashes_its_reader_twice_is_broken(
    document: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = inspecting._Child.start
    killed = []

    async def start_and_crash(child: inspecting._Child) -> asyncio.subprocess.Process:
        process = await start(child)
        os.kill(process.pid, signal.SIGSEGV)
        killed.append(process.pid)
        return process

    async with running(processes=1) as inspector:
        with monkeypatch.context() as patched:
            patched.setattr(inspecting._Child, "start", start_and_crash)
            with pytest.raises(BrokenDocument, match="crashes"):
                await inspector.inspect(document, "x.pdf")
        assert len(set(killed)) == 2
        assert await inspector.inspect(document, "x.pdf") == THREE_PAGES


async def test_a_caller_that_leaves_does_not_leave_its_answer_to_the_next_one(document: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.part"
    other.write_bytes(made.image("PNG"))
    async with running(processes=1) as inspector:
        (slow,) = children(inspector)
        slow.suspend()
        asking = asyncio.ensure_future(inspector.inspect(other, "x.png"))
        await asyncio.sleep(0.05)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert await inspector.inspect(document, "x.pdf") == THREE_PAGES
        await until(lambda: not slow.is_running())


async def test_a_document_that_takes_too_much_memory_is_refused_by_a_process_that_then_retires(
    document: Path, tmp_path: Path
) -> None:
    large = tmp_path / "large.part"
    Image.new("L", (13_000, 13_000)).save(large, "PNG", compress_level=1)
    async with running(processes=1, memory=128 * 1024**2) as inspector:
        before = children(inspector)
        assert await inspector.inspect(document, "x.pdf") == THREE_PAGES
        with pytest.raises(HostileDocument, match="memory"):
            await inspector.inspect(large, "x.png")
        assert await inspector.inspect(document, "x.pdf") == THREE_PAGES
        assert children(inspector) != before


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
async def test_the_processes_know_no_secrets_and_have_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_SECRET", "hunter2")
    async with running(processes=1, memory=1024**3) as inspector:
        (process,) = children(inspector)
        assert "A_SECRET" not in process.environ()
        assert process.rlimit(psutil.RLIMIT_AS) == (1024**3, 1024**3)
        assert process.rlimit(psutil.RLIMIT_CORE) == (0, 0)
        process.send_signal(signal.SIGINT)
        await asyncio.sleep(0.05)
        assert process.is_running()


PARENT = """
import asyncio, sys
from docfleet.intake.inspector import Inspector
async def main():
    inspector = Inspector(processes=2)
    await inspector.start()
    print(*(child._process.pid for child in inspector._children), flush=True)
    await asyncio.sleep(600)
asyncio.run(main())
"""


async def test_the_processes_leave_when_their_parent_is_killed() -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT], cwd=ROOT, stdout=subprocess.PIPE)
    assert parent.stdout is not None
    processes = [psutil.Process(int(pid)) for pid in parent.stdout.readline().split()]
    assert len(processes) == 2
    parent.kill()
    parent.wait()
    parent.stdout.close()
    await until(lambda: not any(process.is_running() for process in processes))


async def test_after_its_end_an_inspector_takes_nothing(document: Path) -> None:
    async with running(processes=1) as inspector:
        pass
    with pytest.raises(NotReady):
        await inspector.inspect(document, "x.pdf")


async def test_at_the_end_a_document_that_is_being_looked_at_is_told_so(document: Path) -> None:
    async with running(processes=1) as inspector:
        (slow,) = children(inspector)
        slow.suspend()
        asking = asyncio.ensure_future(inspector.inspect(document, "x.pdf"))
        await asyncio.sleep(0.05)
    with pytest.raises(NotReady):
        await asking


async def test_an_inspector_starts_by_itself_when_it_is_first_asked(document: Path) -> None:
    inspector = Inspector(processes=2)
    assert await inspector.inspect(document, "x.pdf") == THREE_PAGES
    assert len(children(inspector)) == 1
    await inspector.close()


async def test_processes_that_cannot_start_say_so_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspecting, "_MODULE", "docfleet.intake.no_such_module")
    with pytest.raises(InternalError, match="does not start"):
        await Inspector(processes=1).start()
