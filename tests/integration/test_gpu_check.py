"""`make gpu-check`: what it says where there is no card, and its filler on a driver that is made up."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from docfleet.devices import Kind, detect
from docfleet.engine.interface import EngineContext

ROOT = Path(__file__).resolve().parents[2]

FAKE_CUDA = r"""
#include <stdlib.h>
#include <string.h>
static size_t total = 3000ULL << 20, held = 100ULL << 20;
int cuInit(unsigned flags) { return 0; }
int cuDeviceGetCount(int *count) { *count = getenv("NO_CARD") ? 0 : 1; return 0; }
int cuDeviceGet(int *device, int index) { *device = index; return 0; }
int cuDeviceGetName(char *name, int size, int device) { strcpy(name, "NVIDIA Fake"); return 0; }
int cuDevicePrimaryCtxRetain(void **context, int device) { *context = &total; return 0; }
int cuCtxSetCurrent(void *context) { return context == &total ? 0 : 201; }
int cuMemGetInfo_v2(size_t *free, size_t *all) { *free = total - held; *all = total; return 0; }
int cuMemAlloc_v2(unsigned long long *pointer, size_t size) {
  if (held + size > total) return 2; /* out of memory */
  held += size; *pointer = held; return 0;
}
int cuMemsetD8_v2(unsigned long long pointer, unsigned char value, size_t size) { return pointer ? 0 : 1; }
int cuCtxSynchronize(void) { return 0; }
"""


@pytest.fixture
def driver(tmp_path: Path) -> dict[str, str]:
    if sys.platform != "linux" or shutil.which("cc") is None:
        pytest.skip("needs Linux and a C compiler")
    source = tmp_path / "cuda.c"
    source.write_text(FAKE_CUDA, encoding="utf-8")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(tmp_path / "libcuda.so.1"), str(source)], check=True)
    return os.environ | {"LD_LIBRARY_PATH": str(tmp_path)}


def fill(environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.gpu_driver", "--leave", "200"]
    return subprocess.run(command, cwd=ROOT, env=environ, input="", capture_output=True, text=True, check=False)


def test_the_filler_takes_memory_until_what_it_was_told_is_left(driver: dict[str, str]) -> None:
    done = fill(driver)
    # 2900 MB are free: two pieces of 1024 and five of 128; one of 16 more would leave less.
    assert done.stdout == "holding 2688 MB, 212 MB are free\n", done.stderr


def test_the_filler_says_what_is_missing(driver: dict[str, str], tmp_path: Path) -> None:
    done = fill(driver | {"NO_CARD": "1"})
    assert (done.returncode, done.stderr) == (2, "the CUDA driver shows no card to this process\n")


def test_an_engine_says_what_it_saw_and_what_it_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks.gpu_engine import CardEngine

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    scratch = tmp_path / "scratch" / "0"
    scratch.mkdir(parents=True)
    context = EngineContext(device="cuda:0", threads=1, model_source="local", vlm_server_url=None, scratch=scratch)
    CardEngine().load(context)
    seen = (tmp_path / f"gpu-{os.getpid()}.json").read_text()
    assert '"how": ""' in seen
    assert '"CUDA_VISIBLE_DEVICES": "-1"' in seen
    assert "driver" in seen


def test_without_a_card_the_check_says_so_and_writes_nothing(tmp_path: Path) -> None:
    if any(device.kind is Kind.CUDA for device in detect().accelerators):
        pytest.skip("there is a card here")
    out = tmp_path / "evidence.md"
    command = [sys.executable, "-m", "benchmarks.gpu_check", "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "**missing**: cuda:0 is no NVIDIA card of this machine" in done.stdout
    assert not out.exists()
