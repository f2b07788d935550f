"""Huawei Ascend chips: what npu-smi shows, narrowed to what ASCEND_RT_VISIBLE_DEVICES leaves."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from docfleet.devices.child import Child, Reply
from docfleet.devices.records import Accelerator, Kind, Reading

VISIBLE = "ASCEND_RT_VISIBLE_DEVICES"

_BUS = re.compile(r"[0-9a-fA-F]{4}:[0-9a-fA-F]{2}:[0-9a-fA-F]{2}\.\d")
_USAGE = re.compile(r"(\d+)\s*/\s*(\d+)")
_MIB = 1024**2
#: Chips in any other state are not given work.
_HEALTHY = {"OK", "Warning"}


def start(timeout: float) -> Child:
    """Start looking."""
    return Child(["npu-smi", "info"], timeout)


def read(reply: Reply, environ: Mapping[str, str]) -> tuple[list[Accelerator], str]:
    """Return the visible chips in CANN's order, and what is to be said about the others (empty: nothing)."""
    if reply.failure:
        missing = reply.failure == "npu-smi is not installed"
        return [], "no Ascend driver is installed (npu-smi is not here)" if missing else reply.failure
    chips = parse(reply.output)
    if not chips:
        return [], "npu-smi shows no chip"
    if VISIBLE in environ:
        return visible(chips, environ[VISIBLE])
    return chips, ""


def parse(table: str) -> list[Accelerator]:
    """Read the table of `npu-smi info`: two lines a chip, the first names the card, the second has bus and memory.

    The process counts chips in the table's order, from 0, whatever the numbers of the cards in it are.
    """
    chips: list[Accelerator] = []
    name = health = ""
    for line in table.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if len(cells) < 3 or not cells[0][:1].isdecimal():
            if "Process id" in line:
                break
            continue
        bus = _BUS.fullmatch(cells[1])
        if bus is None:
            name, health = cells[0].partition(" ")[2].strip(), cells[1]
            continue
        # The last pair is the memory that models use: HBM where there is some, else the card's own.
        pairs = [(int(used), int(total)) for used, total in _USAGE.findall(cells[2]) if int(total)]
        used, total = pairs[-1] if pairs else (0, 0)
        chips.append(
            Accelerator(
                kind=Kind.NPU,
                index=len(chips),
                name=f"Ascend {name.removeprefix('Ascend')}",
                pin=str(len(chips)),
                memory_total=total * _MIB or None,
                memory_free=max(0, total - used) * _MIB if total else None,
                bus=bus.group(),
                blocked="" if health in _HEALTHY else f"its health is {health}; see npu-smi info",
            )
        )
    return chips


def readings(table: str, devices: Sequence[Accelerator]) -> list[Reading]:
    """Return what the table of `npu-smi info` says of the devices now; chips are known by their place in it."""
    loads: list[tuple[float | None, float | None, float | None]] = []
    power = temperature = None
    for line in table.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if len(cells) < 3 or not cells[0][:1].isdecimal():
            if "Process id" in line:
                break
            continue
        words = cells[2].split()
        if _BUS.fullmatch(cells[1]):
            loads.append((_number(words, 0), temperature, power))
        else:
            power, temperature = _number(words, 0), _number(words, 1)
    chips = parse(table)
    return [
        Reading(
            device=device.device,
            memory_total=chip.memory_total,
            memory_free=chip.memory_free,
            utilisation=load,
            temperature=degrees,
            power=watts,
        )
        for device in devices
        for chip, (load, degrees, watts) in zip(chips, loads, strict=False)
        if chip.pin == device.pin
    ]


def _number(words: Sequence[str], place: int) -> float | None:
    try:
        return float(words[place])
    except (IndexError, ValueError):
        return None


def visible(chips: Sequence[Accelerator], value: str) -> tuple[list[Accelerator], str]:
    """Narrow `chips` to what an ASCEND_RT_VISIBLE_DEVICES of `value` shows, in its order.

    The first number that is no chip's hides itself and all that follow.
    """
    if not value.strip():
        return [], f"{VISIBLE} is empty, which hides every chip"
    chosen: list[Accelerator] = []
    note = ""
    for entry in (part.strip() for part in value.split(",")):
        if not entry.isdecimal() or int(entry) >= len(chips):
            note = f"{VISIBLE}={value} names {entry or 'nothing'} where no chip is: it and what follows are hidden"
            break
        if chips[int(entry)] not in chosen:
            chosen.append(chips[int(entry)])
    if not note and len(chosen) < len(chips):
        note = f"{VISIBLE}={value} hides {len(chips) - len(chosen)} of {len(chips)}"
    return [replace(chip, index=index) for index, chip in enumerate(chosen)], note
