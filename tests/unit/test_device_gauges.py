"""Readings of devices over time: real child processes that answer, fail, hang and come back."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from docfleet.devices import Accelerator, Kind, cuda, npu
from docfleet.devices.cgroup import Limits
from docfleet.devices.gauges import KEPT_SECONDS, Gauges
from docfleet.devices.records import Reading
from docfleet.devices.sampling import HostProbe, Program, ProgramProbe, probes_for
from tests.unit.test_device_machines import ATLAS_800

FAKE = Path(__file__).resolve().parents[1] / "fake_nvml"
MIB = 1024**2
CARD = Accelerator(kind=Kind.CUDA, index=0, name="NVIDIA Fake", pin="1", uuid="GPU-1")


def until(found: Callable[[], Any], seconds: float = 60) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.02)
    return value


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Cards:
    """What the fake driver says."""

    file: Path
    cards: list[dict[str, Any]] = field(default_factory=list)

    def say(self, **state: Any) -> None:
        draft = self.file.with_suffix(".new")
        draft.write_text(json.dumps({"cards": self.cards, **state}))
        draft.replace(self.file)


@pytest.fixture
def cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cards:
    found = Cards(tmp_path / "nvml.json", [{"total": 1000, "free": 900}, {"total": 24576, "free": 20000, "load": 55}])
    found.say()
    monkeypatch.setenv("PYTHONPATH", str(FAKE))
    monkeypatch.setenv("FAKE_NVML", str(found.file))
    return found


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def watched(clock: Clock) -> Iterator[ProgramProbe]:
    program = Program(
        command=(*cuda.COMMAND, "0.05"), goes_on=True, interval=0.05, read=lambda line: cuda.readings(line, [CARD])
    )
    probe = ProgramProbe(program, clock=clock)
    yield probe
    probe.stop()


def test_a_card_is_read_again_and_again_by_one_process(cards: Cards, watched: ProgramProbe) -> None:
    cards.cards[1] |= {"temperature": 61, "watts": 210.5, "holders": [[4711, 300], [4712, None]]}
    cards.say()
    assert watched.take() == [], "it has just been started"
    (first,) = until(watched.take)
    assert (first.device, first.memory_total, first.memory_free) == ("cuda:0", 24576 * MIB, 20000 * MIB)
    assert (first.utilisation, first.temperature, first.power) == (55, 61, 210.5)
    assert first.holders == ((4711, 300 * MIB), (4712, None))
    cards.cards[1]["free"] = 100
    cards.say()
    until(lambda: any(one.memory_free == 100 * MIB for one in watched.take()))
    assert watched.failure == ""


@pytest.mark.parametrize(
    ("fault", "told"), [("die", "ended with status 5"), ("lost", "GPU is lost")], ids=["dies", "lost card"]
)
def test_a_driver_that_fails_has_no_readings_and_is_asked_again_later(
    cards: Cards, watched: ProgramProbe, clock: Clock, fault: str, told: str
) -> None:
    cards.say(fault=fault)
    until(lambda: watched.take() or watched.failure)
    assert told in watched.failure
    assert "asked again in 10 s" in watched.failure
    cards.say()
    assert watched.take() == []
    clock.now += 11
    (reading,) = until(watched.take)
    assert reading.utilisation == 55
    assert watched.failure == ""


def test_a_driver_that_hangs_is_ended_and_nobody_waits_for_it(
    cards: Cards, watched: ProgramProbe, clock: Clock
) -> None:
    cards.say(fault="hang")
    started = time.monotonic()
    assert watched.take() == watched.take() == []
    clock.now += 16
    assert watched.take() == []
    assert time.monotonic() - started < 5
    assert "gave no answer for 16 s" in watched.failure


def test_a_program_that_is_not_there_or_talks_nonsense_is_a_reason() -> None:
    for command in (("no-such-program-here",), (sys.executable, "-c", "print('nonsense')")):
        probe = ProgramProbe(Program(command=command, goes_on=False, interval=1, read=lambda text: json.loads(text)))
        until(lambda probe=probe: probe.take() or probe.failure)
        assert "asked again" in probe.failure
        probe.stop()


def test_a_program_that_is_run_anew_each_time_waits_in_between(clock: Clock) -> None:
    program = Program(
        command=(sys.executable, "-c", "print(7)"),
        goes_on=False,
        interval=5,
        read=lambda text: [Reading(device="npu:0", power=float(text))],
    )
    probe = ProgramProbe(program, clock=clock)
    assert until(probe.take) == [Reading(device="npu:0", power=7)]
    assert probe.take() == probe.take() == []
    clock.now += 6
    assert until(probe.take) == [Reading(device="npu:0", power=7)]
    probe.stop()


def test_chips_are_read_from_the_table_of_npu_smi() -> None:
    chips = npu.parse(ATLAS_800)
    third = npu.visible(chips, "3")[0]
    (reading,) = npu.readings(ATLAS_800, third)
    assert (reading.device, reading.temperature, reading.power, reading.utilisation) == ("npu:0", 33, 95.3, 0)
    assert reading.memory_total == 65536 * MIB
    assert len(npu.readings(ATLAS_800, chips)) == 8


def test_the_host_is_always_read_and_only_devices_that_are_there_have_programs() -> None:
    (reading,) = HostProbe().take()
    assert reading.device == "cpu"
    assert 0 < (reading.memory_free or 0) <= (reading.memory_total or 0)
    assert [type(probe) for probe in probes_for([], 5)] == [HostProbe]
    chip = Accelerator(kind=Kind.NPU, index=0, name="Ascend", pin="0")
    assert len(probes_for([CARD, chip], 5)) == 3


def test_the_load_is_of_what_the_container_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    moments, used = iter([100.0, 110.0, 120.0]), iter([5.0, 15.0, 55.0])
    monkeypatch.setattr("docfleet.devices.sampling.time.monotonic", lambda: next(moments))
    monkeypatch.setattr("docfleet.devices.sampling.os.sched_getaffinity", lambda pid: set(range(64)), raising=False)
    probe = HostProbe(lambda: Limits(cores=2.0, used=next(used)))
    loads = [probe.take()[0].utilisation for _ in range(3)]
    assert loads == [0.0, 50.0, 100.0], "some periods are used up beyond the quota by the time it is looked at"


def test_the_load_is_of_the_cores_that_the_process_is_bound_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("docfleet.devices.sampling.psutil.cpu_percent", lambda interval, percpu: [90.0, 10.0, 50.0])
    monkeypatch.setattr("docfleet.devices.sampling.os.sched_getaffinity", lambda pid: {0, 2}, raising=False)
    assert HostProbe(Limits).take()[0].utilisation == 70.0


@dataclass
class Told:
    """A probe that says what it is told."""

    readings: list[Reading]
    failure: str = ""
    stopped: bool = False

    def take(self) -> list[Reading]:
        return self.readings

    def stop(self) -> None:
        self.stopped = True


def test_an_hour_is_kept_and_never_more_and_what_is_old_is_not_shown_as_now(clock: Clock) -> None:
    probe = Told([Reading(device="cuda:0", utilisation=1)])
    gauges = Gauges([probe], interval=5, clock=clock)
    for _ in range(1000):
        gauges.look()
        clock.now += 5
    kept = gauges.history(KEPT_SECONDS)["cuda:0"]
    assert len(kept) in (720, 721)
    assert kept[0].at < kept[-1].at
    assert [round(clock.now - one.at) for one in gauges.history(12)["cuda:0"]] == [10, 5]
    assert gauges.latest("cuda:0") is not None
    assert gauges.latest("cuda:1") is None
    probe.readings, probe.failure = [], "the card is gone"
    clock.now += 60
    gauges.look()
    assert gauges.latest("cuda:0") is None
    assert gauges.failures() == ["the card is gone"]
    gauges.stop()
    assert probe.stopped
