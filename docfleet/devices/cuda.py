"""NVIDIA cards: what NVML reports, narrowed to what CUDA_VISIBLE_DEVICES leaves."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from docfleet.devices.child import Child, Reply
from docfleet.devices.records import Accelerator, Kind, Reading

VISIBLE = "CUDA_VISIBLE_DEVICES"
#: How CUDA counts. NVML counts along the PCI bus; CUDA does so on this word only, and else puts the card that it takes
#: for the fastest first.
ORDER = "CUDA_DEVICE_ORDER"
BUS_ORDER = "PCI_BUS_ID"
#: The driver's name among `Machine.versions`.
DRIVER = "nvidia-driver"


#: -P keeps this folder off the path, where its module names would hide others.
COMMAND = (sys.executable, "-P", str(Path(__file__).with_name("nvml.py")))


def start(timeout: float) -> Child:
    """Start looking."""
    return Child(COMMAND, timeout)


def read(reply: Reply, environ: Mapping[str, str]) -> tuple[list[Accelerator], str]:
    """Return the visible cards in CUDA's order, and what is to be said about the others (empty: nothing)."""
    if reply.failure:
        return [], f"asking NVML failed: {reply.failure}"
    try:
        facts = json.loads(reply.output)
    except ValueError:
        return [], "asking NVML failed: its answer cannot be read"
    if "failure" in facts:
        return [], str(facts["failure"])
    units, notes = _units(facts["cards"])
    if VISIBLE in environ:
        units, said = visible(units, environ[VISIBLE])
        notes += said
    elif not facts["cards"]:
        notes.append("the NVIDIA driver is here, but it shows no card")
    return [_accelerator(index, unit) for index, unit in enumerate(units)], "; ".join(notes)


def doubt(reply: Reply, environ: Mapping[str, str]) -> str:
    """Return what to tell whoever chose some of unequal cards by number in CUDA_VISIBLE_DEVICES, else an empty text.

    Raises:
        ValueError: the reply cannot be read.
    """
    value = environ.get(VISIBLE, "")
    if reply.failure or not any(entry.strip().isdecimal() for entry in value.split(",")):
        return ""
    cards = json.loads(reply.output).get("cards", ())
    units, _ = _units(cards)
    if len(visible(units, value)[0]) == len(units):
        return ""
    return order_doubt(f"{VISIBLE}={value}", [str(card["name"]) for card in cards if card.get("name")], environ)


def order_doubt(choice: str, names: Sequence[str], environ: Mapping[str, str]) -> str:
    """Return that CUDA may count cards otherwise than we do, or an empty text where it does not.

    Args:
        choice: where the user chose cards by number.
        names: of the cards to choose from.
        environ: holds CUDA_DEVICE_ORDER, if the user has set it.
    """
    if len(set(names)) < 2 or environ.get(ORDER, "").strip().upper() == BUS_ORDER:
        return ""
    return (
        f"{choice} is read in the order of the PCI bus, as nvidia-smi counts. These cards differ, and other programs "
        f"may count the fastest first: python device_utils.py lists them; {ORDER}={BUS_ORDER} makes all count alike."
    )


def driver(reply: Reply) -> dict[str, str]:
    """Return the version of NVIDIA's driver under the name it has among versions; nothing where it tells none."""
    try:
        version = json.loads(reply.output).get("driver")
    except (ValueError, AttributeError):
        return {}
    return {DRIVER: str(version)} if version else {}


def readings(line: str, devices: Sequence[Accelerator]) -> list[Reading]:
    """Return what an answer of `nvml.py` says of the devices now; those that it does not name are left out.

    A slice of a card has memory of its own; load, heat and power are the card's.

    Raises:
        ValueError: the answer is none, or the driver does not answer; the text says why.
    """
    facts = json.loads(line)
    if "failure" in facts:
        raise ValueError(facts["failure"])
    units, _ = _units(facts["cards"])
    known = {unit["uuid"]: unit for unit in units}
    return [_reading(device, known[device.uuid]) for device in devices if device.uuid in known]


def _reading(device: Accelerator, unit: Mapping[str, Any]) -> Reading:
    holders = unit.get("holders")
    return Reading(
        device=device.device,
        memory_total=unit["memory_total"],
        memory_free=unit["memory_free"],
        utilisation=unit.get("utilisation"),
        temperature=unit.get("temperature"),
        power=unit.get("power"),
        holders=None if holders is None else tuple((int(pid), size) for pid, size in holders),
    )


def _units(cards: Sequence[Mapping[str, Any]]) -> tuple[list[dict[str, Any]], list[str]]:
    """Return what a process can be pinned to: whole cards, and the slices of those in MIG mode."""
    units: list[dict[str, Any]] = []
    notes: list[str] = []
    # Numbers of whole cards shift for CUDA as soon as one card is sliced; identifiers hold. Else numbers are the
    # better pin, because vLLM cannot read identifiers.
    by_number = not any(card.get("mig") for card in cards)
    for card in cards:
        number = int(card["index"])
        if "failure" in card:
            notes.append(f"card {number} does not answer: {card['failure']}")
        elif not card["mig"]:
            pin = str(number) if by_number else card["uuid"]
            units.append({**card, "card": number, "pin": pin, "card_uuid": card["uuid"]})
        elif not card["slices"]:
            notes.append(f"card {number} is in MIG mode without instances; make some with nvidia-smi mig -cgi ... -C")
        else:
            shared = {"card": number, "card_uuid": card["uuid"], "bus": card["bus"]}
            shared |= {"compute_capability": card["compute_capability"], "processes": None}
            shared |= {name: card.get(name) for name in ("utilisation", "temperature", "power")}
            units += [{**piece, **shared, "pin": piece["uuid"]} for piece in card["slices"]]
    return units, notes


def visible(units: Sequence[Mapping[str, Any]], value: str) -> tuple[list[dict[str, Any]], list[str]]:
    """Narrow `units` to what a CUDA_VISIBLE_DEVICES of `value` shows, in its order.

    As in CUDA an entry is a number, an identifier or the beginning of one, and the first entry that fits nothing
    (-1 by custom) hides itself and all that follow. The number of a card in MIG mode stands for all its slices,
    because each worker is shown one.
    """
    chosen: list[dict[str, Any]] = []
    if not value.strip():
        return [], [f"{VISIBLE} is empty, which hides every card"]
    for entry in (part.strip() for part in value.split(",")):
        fitting = [dict(unit) for unit in units if _fits(unit, entry)]
        if not fitting:
            hidden = f"{VISIBLE}={value} names {entry or 'nothing'} where no card is: it and what follows are hidden"
            return chosen, [f"{VISIBLE}={value} hides every card" if entry == "-1" and not chosen else hidden]
        chosen += [unit for unit in fitting if unit["pin"] not in {known["pin"] for known in chosen}]
    left_out = len(units) - len(chosen)
    return chosen, [f"{VISIBLE}={value} hides {left_out} of {len(units)}"] if left_out else []


def _fits(unit: Mapping[str, Any], entry: str) -> bool:
    if entry.isdecimal():
        return bool(unit["card"] == int(entry))
    if entry.startswith(("GPU-", "MIG-")) and len(entry) > len("GPU-"):
        return str(unit["uuid"]).startswith(entry) or str(unit["card_uuid"]).startswith(entry)
    return False


def _accelerator(index: int, unit: Mapping[str, Any]) -> Accelerator:
    return Accelerator(
        kind=Kind.CUDA,
        index=index,
        name=unit["name"] or "NVIDIA card",
        pin=unit["pin"],
        uuid=unit["uuid"],
        memory_total=unit["memory_total"],
        memory_free=unit["memory_free"],
        bus=unit["bus"],
        compute_capability=unit["compute_capability"],
        processes=unit["processes"],
    )
