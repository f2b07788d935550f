"""Which devices are to be used: the setting `devices`, or MINERU_DEVICE_MODE, against what is here."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from docfleet.devices import cuda
from docfleet.devices.environment import DEVICE_MODE
from docfleet.devices.records import Accelerator, Kind, Machine
from docfleet.errors import ConfigurationError

_NAME = re.compile(r"(cuda|npu|mps|xpu|cpu)(?::(\d+))?")


@dataclass
class Selection:
    """Devices to plan on; None stands for the CPU."""

    targets: list[Accelerator | None] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    #: Devices that are here and not selected, with the reason.
    unused: dict[str, str] = field(default_factory=dict)


def select(machine: Machine, devices: str) -> Selection:
    """Return the devices to use.

    Args:
        machine: what is here.
        devices: "auto" (every accelerator that can be used, else the CPU), or names with commas between them:
            "cuda", "npu" and "xpu" mean all of their kind, "cuda:1" one, "mps", "cpu".

    Raises:
        ConfigurationError: a name is unknown, given twice, or of a device that is not here.
    """
    wish, source = devices.strip().lower(), "devices"
    mode = machine.variables.get(DEVICE_MODE, "").strip().lower()
    selection = Selection()
    if wish == "auto" and mode and mode != "auto":
        wish, source = mode, DEVICE_MODE
    elif mode not in ("", "auto") and mode.partition(":")[0] not in re.findall(r"[a-z]+", wish):
        selection.warnings.append(f"{DEVICE_MODE}={mode} is not used, because devices={devices} says otherwise.")
    if wish == "auto":
        _take_all(machine, selection)
        return selection
    for name in wish.split(","):
        for target in _named(machine, name.strip(), source):
            if target in selection.targets:
                raise ConfigurationError(
                    f"{source}={wish} names {name.strip()} twice; set workers_per_device for several workers on it."
                )
            selection.targets.append(target)
            if target is not None and target.hindrance:
                selection.warnings.append(f"{target.device} is used because you named it, but {target.hindrance}.")
    selection.warnings += filter(None, [_doubt(machine, selection, f"{source}={wish}")])
    for device in machine.accelerators:
        if device not in selection.targets:
            selection.unused[device.device] = f"not named in {source}={wish}"
    return selection


def _doubt(machine: Machine, selection: Selection, choice: str) -> str:
    cards = [device for device in machine.accelerators if device.kind is Kind.CUDA]
    # Numbers within CUDA_VISIBLE_DEVICES follow its own order, of which all is said where it is read.
    if cuda.VISIBLE in machine.variables or all(
        (card in selection.targets) == (cards[0] in selection.targets) for card in cards
    ):
        return ""
    # A slice is named after its card.
    names = [card.name.partition(" MIG ")[0] for card in cards]
    return cuda.order_doubt(choice, names, machine.variables)


def _take_all(machine: Machine, selection: Selection) -> None:
    for device in machine.accelerators:
        if device.hindrance:
            selection.unused[device.device] = device.hindrance
        else:
            selection.targets.append(device)
    if not selection.targets:
        selection.targets.append(None)


def _named(machine: Machine, name: str, source: str) -> list[Accelerator | None]:
    matched = _NAME.fullmatch(name)
    if matched is None:
        raise ConfigurationError(
            f"{source}: {name!r} is no device that can be planned for; use auto, cpu, mps, or a list such as "
            "cuda:0,cuda:1 or npu:0,cpu."
        )
    kind = Kind(matched[1])
    number = None if matched[2] is None else int(matched[2])
    if kind is Kind.CPU and not number:
        return [None]
    fitting = [device for device in machine.accelerators if device.kind is kind and number in (None, device.index)]
    if fitting:
        return list(fitting)
    here = [device.device for device in machine.accelerators] + ["cpu"]
    reason = next((probe.reason for probe in machine.probes if probe.kind is kind and probe.reason), "")
    raise ConfigurationError(
        f"{source}: {name} is not here{f' ({reason})' if reason else ''}; this machine has {', '.join(here)}. "
        "Name one of these, or use auto."
    )
