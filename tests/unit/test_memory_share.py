"""Out of memory: how it is recognised, and what share of memory a worker takes after it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from docfleet.engine.memory import is_out_of_memory
from docfleet.engine.mineru.analysis import window_starts
from docfleet.errors import OutOfDeviceMemory, ParseFailed, from_record
from docfleet.options import ParseOptions
from docfleet.worker.frugality import GOOD_SHARDS, SMALLEST, Frugality
from tests.mineru_support import request_for


class OutOfMemoryError(RuntimeError):
    """As torch calls its own."""


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OutOfMemoryError("whatever it says"),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 23.64 GiB"),
        RuntimeError(
            "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported at some other call"
        ),
        RuntimeError("NPU out of memory. Tried to allocate 512.00 MiB (NPU 0; 60.97 GiB total capacity)"),
        RuntimeError("MPS backend out of memory (MPS allocated: 17.82 GB, other allocations: 1.12 GB)"),
        RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        Exception("[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : BFCArena::AllocateRawInternal Available memory of 0"),
        Exception("[ONNXRuntimeError] : 1 : FAIL : Failed to allocate memory for requested buffer of size 603979776"),
        Exception("[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : CUDA failure 2: out of memory ; GPU=0"),
        Exception("[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : std::bad_alloc"),
        ValueError("No available memory for the cache blocks. Try increasing `gpu_memory_utilization`"),
        ValueError("Free memory on device (3.1/23.6 GiB) on startup is less than desired GPU memory utilization (0.9)"),
    ],
    ids=lambda error: f"{type(error).__name__} {error}"[:60],
)
def test_each_library_is_understood_where_memory_ran_out(error: Exception) -> None:
    assert is_out_of_memory(error)
    wrapped = ValueError("the page could not be read")
    wrapped.__cause__ = error
    assert is_out_of_memory(wrapped)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        ValueError("page 3 is out of range"),
        OSError(28, "No space left on device"),
        ParseFailed("The text says: out of memory, out of mind."),
    ],
    ids=str,
)
def test_another_failure_is_not_taken_for_it(error: Exception) -> None:
    assert not is_out_of_memory(error)


def test_a_loop_of_causes_ends() -> None:
    error = ValueError("a")
    error.__cause__ = error
    assert not is_out_of_memory(error)


def test_it_crosses_the_store_as_what_it_is_and_may_be_tried_again() -> None:
    error = from_record(OutOfDeviceMemory("too much").record())
    assert isinstance(error, OutOfDeviceMemory)
    assert (error.status, error.retryable) == (503, True)


def needing(most: float) -> Callable[[float], float]:
    def attempt(share: float) -> float:
        if share > most:
            raise RuntimeError("CUDA out of memory.")
        return share

    return attempt


def test_the_share_is_halved_until_it_fits_and_doubled_after_some_good_shards() -> None:
    told: list[float] = []
    again: list[None] = []
    frugality = Frugality(told.append)
    assert frugality.perform(needing(0.3), lambda: again.append(None)) == 0.25
    assert (told, len(again)) == ([0.5, 0.25], 2)
    shares = [frugality.perform(needing(1), lambda: None) for _ in range(2 * GOOD_SHARDS + 1)]
    assert shares == [0.25] * (GOOD_SHARDS - 1) + [0.5] * GOOD_SHARDS + [1.0, 1.0]
    assert told == [0.5, 0.25, 0.5, 1.0]


def test_trouble_on_the_way_up_leads_down_again_and_good_shards_are_counted_anew() -> None:
    frugality = Frugality()
    frugality.perform(needing(0.5), lambda: None)
    for _ in range(GOOD_SHARDS - 2):
        frugality.perform(needing(1), lambda: None)
    assert frugality.perform(needing(0.25), lambda: None) == 0.25
    for _ in range(GOOD_SHARDS - 2):
        frugality.perform(needing(1), lambda: None)
    assert frugality.share == 0.25


def test_what_is_too_much_even_at_the_smallest_share_is_the_documents_failure() -> None:
    frugality = Frugality()
    with pytest.raises(OutOfDeviceMemory, match="one window at a time") as failed:
        frugality.perform(needing(0), lambda: None)
    assert frugality.share == SMALLEST
    assert "CUDA out of memory" in str(failed.value.__cause__)
    own = OutOfDeviceMemory("in the engine's own words")
    with pytest.raises(OutOfDeviceMemory, match="own words"):
        frugality.perform(lambda share: (_ for _ in ()).throw(own), lambda: None)


def test_any_other_failure_goes_through_at_once() -> None:
    frugality, calls = Frugality(), []

    def attempt(share: float) -> None:
        calls.append(share)
        raise KeyError("x")

    with pytest.raises(KeyError):
        frugality.perform(attempt, lambda: None)
    assert calls == [1.0]


@pytest.mark.parametrize(
    ("share", "starts"),
    [(1.0, {0, 16, 32}), (0.5, {0, 8, 16, 24, 32}), (0.125, set(range(0, 40, 2))), (0.001, set(range(40)))],
)
def test_mineru_reads_smaller_windows_that_end_where_the_usual_ones_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, share: float, starts: set[int]
) -> None:
    monkeypatch.setenv("MINERU_PROCESSING_WINDOW_SIZE", "16")
    request = replace(request_for(tmp_path / "paper.pdf", pages=40), memory_share=share)
    assert window_starts(request) == starts
    usual = window_starts(replace(request, memory_share=1.0))
    assert usual <= window_starts(request), "a shard that begins at a usual window begins at one of these"


def test_windows_of_a_probe_are_those_in_which_the_document_was_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MINERU_PROCESSING_WINDOW_SIZE", "4")
    options = ParseOptions(start_page_id=13, end_page_id=24)
    probe = request_for(tmp_path / "paper.pdf", pages=40, first=13, last=24, options=options)
    assert window_starts(probe) == {13, 17, 21}
    assert window_starts(replace(probe, counted_from=2)) == {13, 14, 18, 22}
