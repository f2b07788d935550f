"""All that only a machine with an NVIDIA card can show: `make gpu-check`, or `python -m benchmarks.gpu_check`.

Detection; two workers on one card, each pinned to it and really computing on it; readings; workers that rest while
another program fills the card. Prints what it saw and writes it to docs/gpu-evidence.md. Ends with 0 if all of it
holds, 1 if something does not, 2 if something is missing that it needs (and says what).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import requests

from docfleet.devices import Accelerator, Kind, Machine, cuda, detect
from docfleet.devices.records import GIB
from tests.serving import ROOT, Serving, blank_pdf, running, wait_ready, wait_until

MB = 1024 * 1024
#: MB that the filler leaves.
_LEFT = 128
_REMEDY = "pip install -r requirements/gpu.txt"


@dataclass
class Evidence:
    """What was seen."""

    lines: list[str] = field(default_factory=list)
    failed: int = 0
    missing: int = 0

    def say(self, line: str) -> None:
        self.lines.append(line)
        print(line, flush=True)

    def judge(self, what: str, holds: bool, told: str) -> None:
        self.failed += not holds
        self.say(f"- **{'holds' if holds else 'DOES NOT HOLD'}**: {what}: {told}")

    def lacks(self, what: str, remedy: str) -> None:
        self.missing += 1
        self.say(f"- **missing**: {what}. {remedy}")

    def show(self, title: str, value: Any) -> None:
        self.say(f"\n{title}:\n\n```json\n{json.dumps(value, indent=1)}\n```\n")

    @property
    def status(self) -> int:
        return 1 if self.failed else 2 if self.missing else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--workers", type=int, default=2, help="on the card")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "gpu-evidence.md")
    args = parser.parse_args()
    evidence = Evidence()
    evidence.say(f"# On a machine with a card ({datetime.now(UTC):%Y-%m-%d})\n\n`make gpu-check` printed:\n")
    machine = detect()
    card = next((one for one in machine.accelerators if one.device == args.device), None)
    if card is None or card.kind is not Kind.CUDA:
        reason = next((probe.reason for probe in machine.probes if probe.kind is Kind.CUDA), "")
        evidence.lacks(f"{args.device} is no NVIDIA card of this machine ({reason})", "Run this where there is one.")
        return evidence.status
    _detection(evidence, machine, card)
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        mark = _mark(card)
        options = ["--devices", card.device, "--workers-per-device", str(args.workers), "--sample-seconds", "1"]
        options += ["--engines", "benchmarks.gpu_engine:CardEngine", "--rest-below-device-mb", str(mark)]
        with running(data, *options) as serving:
            try:
                wait_ready(serving, args.workers, seconds=300)
                _workers(evidence, serving, card, args.workers)
                _readings(evidence, serving, card)
                _filling(evidence, serving, card, mark, args.workers)
            except (AssertionError, OSError, LookupError) as exc:
                evidence.judge("the check came to its end", False, f"{type(exc).__name__}: {exc}")
    args.out.write_text("\n".join(evidence.lines) + "\n", encoding="utf-8")
    print(f"\nwritten to {args.out}")
    return evidence.status


def _mark(card: Accelerator) -> int:
    """Return MB below which workers rest: far above what the filler leaves and two idle workers hold."""
    total = (card.memory_total or 24 * GIB) // MB
    return min(4096, total // 3)


def _detection(evidence: Evidence, machine: Machine, card: Accelerator) -> None:
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    evidence.say(f"{card.name}, {(card.memory_total or 0) / GIB:.1f} GiB; {machine.cpu.cores:g} cores; {versions}\n")
    known = bool(card.uuid and card.memory_total and card.compute_capability)
    near = card.near_cpus or "not told"
    told = (
        f"{card.device} is {card.uuid}, capability {card.compute_capability}, pinned by {card.pin}, near cores {near}"
    )
    evidence.judge("the card is found with identifier, memory and capability", known, told)
    if card.hindrance:
        evidence.lacks(f"{card.device} would not be used by itself: {card.hindrance}", "")
    for value, expected in (("", 0), ("-1", 0), (card.uuid, 1)):
        found = [one for one in detect({"CUDA_VISIBLE_DEVICES": value}).accelerators if one.kind is Kind.CUDA]
        evidence.judge(
            f"CUDA_VISIBLE_DEVICES={value!r} shows {expected} card(s)", len(found) == expected, str(len(found))
        )


def _workers(evidence: Evidence, serving: Serving, card: Accelerator, number: int) -> None:
    pids = [worker["pid"] for worker in serving.workers()]
    seen = [json.loads((serving.data / f"gpu-{pid}.json").read_text()) for pid in pids]
    evidence.show("What each worker saw (a process's /proc/<pid>/environ shows only what it began with)", seen)
    evidence.judge(f"{number} workers run on the card", len(set(pids)) == number, f"processes {pids}")
    pins = {one["environment"]["CUDA_VISIBLE_DEVICES"] for one in seen}
    evidence.judge("each is pinned to the card alone", pins == {card.pin}, f"CUDA_VISIBLE_DEVICES in {pins}")
    counts = {one.get("cards_seen") for one in seen}
    evidence.judge("the driver shows each of them one card", counts == {1}, f"cards seen: {counts}")
    if card.memory_total:
        share = str(round(card.memory_total / GIB) // number)
        shares = {one["environment"]["MINERU_VIRTUAL_VRAM_SIZE"] for one in seen}
        evidence.judge(f"each has its share of the memory, {share} GB", shares == {share}, str(shares))
    how = {one["how"] for one in seen}
    if "" in how:
        causes = {one.get("failure", "neither torch with CUDA nor onnxruntime-gpu is installed") for one in seen}
        evidence.lacks(f"a library that computes on the card ({'; '.join(causes)})", f"{_REMEDY}, then run this again.")
        return
    evidence.judge("each computes on the card", True, ", ".join(sorted(how)))
    # The same numbers that the driver knows them by, unless this is a container.
    reading = next(iter(cuda.readings(cuda.start(10).reply().output, [card])), None)
    holders = {pid for pid, _ in (reading.holders or ())} if reading else set()
    if not holders & set(pids):
        evidence.lacks(
            f"the workers' numbers among the card's processes ({sorted(holders)})", "A container hides them."
        )
    else:
        evidence.judge("the driver names each as a holder of memory", set(pids) <= holders, str(sorted(holders)))


def _readings(evidence: Evidence, serving: Serving, card: Accelerator) -> None:
    _send(serving)

    def now() -> Any:
        found = serving.get("/api/gpu-status")["gpu_status"]["devices"]
        return next(one["now"] for one in found if one["device"] == card.device)

    reading = wait_until(now, seconds=30, message="no reading")
    evidence.show("A reading of the card", reading)
    told = [name for name in ("memory_free", "utilisation", "temperature", "power") if reading[name] is not None]
    evidence.judge("memory, load, heat and power are read", len(told) == 4, ", ".join(told))


def _filling(evidence: Evidence, serving: Serving, card: Accelerator, mark: int, number: int) -> None:
    def states() -> list[str]:
        return [worker["state"] for worker in serving.workers()]

    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.gpu_driver", "--leave", str(_LEFT)],
        cwd=ROOT,
        # As the workers are: number 0 of this process is the card.
        env=_environment(card),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as filler:
        assert filler.stdout is not None
        said = filler.stdout.readline().strip()
        evidence.judge("another program fills the card", said.startswith("holding"), said or "it could not")
        if not said:
            return
        started = time.monotonic()
        wait_until(lambda: states() == ["resting"] * number, seconds=30, message=f"workers rest, not {states()}")
        detail = serving.workers()[0]["detail"]
        evidence.judge("all workers rest", True, f"after {time.monotonic() - started:.1f} s; {detail}")
        job = _send(serving)
        time.sleep(3)
        state = serving.get(f"/jobs/{job}")["state"]
        evidence.judge("a document that comes now waits", state == "queued", state)
        filler.kill()
    started = time.monotonic()
    wait_until(lambda: "resting" not in states(), seconds=60, message="workers go on")
    evidence.judge("they go on when it is gone", True, f"after {time.monotonic() - started:.1f} s")
    wait_until(lambda: serving.get(f"/jobs/{job}")["state"] == "completed", seconds=60, message="the document is read")
    evidence.judge("and the document is read", True, f"less than {mark} MB free was the mark")


def _environment(card: Accelerator) -> dict[str, str]:
    return os.environ | {"CUDA_VISIBLE_DEVICES": card.pin, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


def _send(serving: Serving) -> str:
    answer = requests.post(f"{serving.url}/jobs?filename=page.pdf", data=blank_pdf(1), timeout=30)
    answer.raise_for_status()
    return str(answer.json()["job_id"])


if __name__ == "__main__":
    sys.exit(main())
