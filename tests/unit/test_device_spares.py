"""How many spare workers a machine gets, and which slots they can serve."""

from __future__ import annotations

import pytest

from docfleet.devices import plan
from docfleet.devices.spares import count_spares, spare_slots
from docfleet.records import WorkerSlot
from docfleet.settings import resolve
from tests.unit.test_device_plan import cards, machine


@pytest.mark.parametrize(
    ("cores", "gib", "gpus", "expected", "told"),
    [
        (2, 16, 0, 1, "waits to take over"),
        (2, 2.6, 0, 0, "do not hold 2 worker(s) and one more"),
        (16, 64, 2, 0, "accelerator's memory"),
    ],
)
def test_a_cpu_gets_one_where_memory_holds_it_and_a_card_none(
    cores: int, gib: float, gpus: int, expected: int, told: str
) -> None:
    found = machine(cores, gib, cards(*[80] * gpus))
    count, reason = count_spares(found, plan(found).workers, "auto")
    assert count == expected
    assert told in reason


def test_a_number_that_was_asked_for_is_given() -> None:
    found = machine(2, 1, cards(80))
    assert count_spares(found, plan(found).workers, 3)[0] == 3
    assert resolve({}, {"DOCFLEET_SPARES": "2"}).settings.spares == 2
    assert resolve({}, {"DOCFLEET_SPARES": "auto"}).settings.spares == resolve({}, {}).settings.spares == "auto"


def test_spares_are_numbered_on_from_the_plan_and_the_kinds_of_environment_take_turns() -> None:
    slots = [
        WorkerSlot(index=n, device=f"cuda:{n}", environment={"CUDA_VISIBLE_DEVICES": str(n % 2)}) for n in range(3)
    ]
    spares = spare_slots(slots, 3)
    assert [spare.index for spare in spares] == [3, 4, 5]
    assert [spare.environment["CUDA_VISIBLE_DEVICES"] for spare in spares] == ["0", "1", "0"]
    assert spare_slots(slots, 0) == ()
