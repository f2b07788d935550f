"""The devices of this machine: what is here, what would be used, and why not more.

    python device_utils.py [--json] [--tier basic] [any option of server.py]

It takes the options, environment and settings file that the server takes, and tells of the server that would run with
them; nothing is started, opened or written. Ends with status 0 if the machine is fit, 1 if it works slowly (no
accelerator, scarce memory), 2 if it is unfit, its disk is full or the server would refuse to start. From Python:
`plan(detect())`. A running server tells the same at `GET /api/gpu-status`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loguru import logger

from _config_endpoint import HubProbe, ModelSource, missing_weights, probe_chosen, resolve_model_source
from docfleet.commandline import add_setting_options
from docfleet.devices import Accelerator, Fitness, Kind, Machine, Plan, PlannedWorker, Probe, detect, plan
from docfleet.devices.records import GIB
from docfleet.errors import DocfleetError
from docfleet.models.backends import Backend, backends_for
from docfleet.options import Tier
from docfleet.planning import Foresight, check_start, foresee
from docfleet.settings import Resolved, resolve

__all__ = [
    "Accelerator",
    "Fitness",
    "Kind",
    "Machine",
    "Plan",
    "PlannedWorker",
    "Probe",
    "Report",
    "describe",
    "detect",
    "free_disk",
    "main",
    "plan",
    "report",
]

_STATUS = {Fitness.FIT: 0, Fitness.DEGRADED: 1, Fitness.UNFIT: 2}


def free_disk(folder: Path) -> int:
    """Return the bytes free where `folder` lies or will lie."""
    existing = folder.absolute()
    while not existing.exists():
        existing = existing.parent
    return shutil.disk_usage(existing).free


@dataclass(frozen=True, kw_only=True)
class Report:
    """All that the command tells."""

    machine: Machine
    foresight: Foresight
    #: Where models would come from.
    source: ModelSource
    #: What the hubs answered.
    probes: tuple[HubProbe, ...]
    data_dir: Path
    #: Kinds of small models that the planned workers load.
    backends: tuple[Backend, ...] = ()
    #: Of the settings, one sentence each.
    warnings: tuple[str, ...] = ()
    #: Bytes free for results, and those below which the server takes no document.
    disk: int = 0
    least_disk: int = 0

    @property
    def disk_is_full(self) -> bool:
        """Whether every document would be refused."""
        return self.disk < self.least_disk

    @property
    def fitness(self) -> Fitness:
        """How well the machine can do the work, its disk included."""
        return Fitness.UNFIT if self.disk_is_full else self.planned.fitness

    @property
    def all_warnings(self) -> tuple[str, ...]:
        """What the user should know, one sentence each."""
        said = (*self.foresight.decision.warnings, *self.warnings)
        if not self.disk_is_full:
            return said
        full = (
            f"{self.disk / GIB:.1f} GiB are free for {self.data_dir}: below {self.least_disk / GIB:.1f} GiB every "
            "document is refused (507). Make room, or set min_free_disk_mb."
        )
        return (*said, full)

    @property
    def planned(self) -> Plan:
        """The workers."""
        return self.foresight.decision.planned

    @property
    def advice(self) -> dict[str, Any]:
        """See `docfleet.devices.advice.recommendations`."""
        return self.foresight.decision.advice


def report(machine: Machine, resolved: Resolved, *, tier: str = "auto") -> Report:
    """Decide as the server does, and look for the models; takes three seconds where a hub hangs.

    Raises:
        DocfleetError: the server would refuse to start, in the same words.
    """
    # Told in the report itself, not in the log.
    logger.disable("_config_endpoint")
    settings = resolved.settings
    folder = check_start(settings)
    source = resolve_model_source(os.environ, home=folder.root / "mineru", models_dir=settings.models_dir)
    foresight = foresee(settings, machine, folder, os.environ | source.environment(), tier=tier)
    devices = (worker.device for worker in foresight.decision.planned.workers)
    return Report(
        machine=machine,
        foresight=foresight,
        source=source,
        probes=probe_chosen(source, os.environ),
        data_dir=folder.root,
        backends=backends_for(devices, machine.versions, os.environ),
        warnings=resolved.warnings(),
        disk=free_disk(folder.root),
        least_disk=settings.min_free_disk_mb * 2**20,
    )


def facts(told: Report) -> dict[str, Any]:
    """Return what `--json` prints."""
    machine, planned, data_dir = told.machine, told.planned, told.data_dir
    return {
        "machine": machine.to_json(),
        "plan": planned.to_json() | {"recommended_concurrency": told.advice["max_concurrent"]},
        "recommendations": told.advice,
        "model_source": told.source.to_json() | {"probes": [probe.to_json() for probe in told.probes]},
        "weights": {
            "backends": list(told.backends),
            "missing": missing_weights(told.source.models_dir, told.backends),
        },
        "vlm": _vlm(told.foresight),
        "warnings": list(told.all_warnings),
        "free_disk": {"folder": str(data_dir), "bytes": told.disk},
        "exit_status": _STATUS[told.fitness],
    }


def describe(told: Report) -> str:
    """Return the same facts for people, in lines that fit a terminal where their texts allow."""
    machine, planned = told.machine, told.planned
    return "\n".join(
        [
            "Found",
            *_found(told),
            "",
            f"Will be used: {len(planned.workers)} worker(s); recommended: {told.advice['max_concurrent']}",
            *_used(planned),
            "",
            "To be expected, in seconds a page: one worker / all of them",
            *_expected(told.advice),
            "",
            "Models",
            *_models(told),
            "",
            "Why not more",
            *(f"  {line}" for line in planned.limits),
            *(f"  {device}: {reason}." for device, reason in planned.unused.items()),
            *_warned(told),
            "",
            "Versions",
            "  " + ", ".join(f"{name} {version}" for name, version in machine.versions.items()),
            "",
            f"Verdict: {told.fitness}",
        ]
    )


def _found(told: Report) -> Iterator[str]:
    machine = told.machine
    cpu, memory = machine.cpu, machine.memory
    narrowed = [f"{cpu.logical} logical"]
    if cpu.affinity is not None and cpu.affinity < cpu.logical:
        narrowed.append(f"{cpu.affinity} by affinity")
    if cpu.quota is not None:
        narrowed.append(f"{cpu.quota:g} by the container's quota")
    yield f"  cpu      {cpu.cores:g} core(s) ({', '.join(narrowed)}) {cpu.name}".rstrip()
    limit = f", limited to {memory.limit / GIB:.1f} GiB by the container" if memory.limit else ""
    yield f"  memory   {memory.available / GIB:.1f} of {memory.total / GIB:.1f} GiB available{limit}"
    yield f"  disk     {told.disk / GIB:.1f} GiB free for {told.data_dir}"
    for device in machine.accelerators:
        sizes = ""
        if device.memory_total is not None and device.memory_free is not None:
            sizes = f", {device.memory_free / GIB:.1f} of {device.memory_total / GIB:.1f} GiB free"
        more = f", compute capability {device.compute_capability}" if device.compute_capability else ""
        more += "" if device.processes is None else f", {device.processes} process(es) on it"
        yield f"  {device.device:<8} {device.name}{sizes}{more}{f', {device.uuid}' if device.uuid else ''}"
    for probe in machine.probes:
        if probe.reason:
            yield f"  {probe.kind:<8} {'' if probe.found else 'none: '}{probe.reason}"
    for name, value in machine.variables.items():
        yield f"  set      {name}={value}"


def _used(planned: Plan) -> Iterator[str]:
    for worker in planned.workers:
        share = f", {worker.device_memory_gb} GB of the device" if worker.device_memory_gb else ""
        variables = worker.environment.items()
        pins = " ".join(
            f"{name}={value}" for name, value in variables if name.endswith(("_DEVICES", "_MASK")) and value != "-1"
        )
        yield (
            f"  worker {worker.index}  {worker.device:<8} {worker.threads} thread(s), "
            f"{worker.render_processes} render process(es){share}{f'  [{pins}]' if pins else ''}"
        )


def _expected(advice: dict[str, Any]) -> Iterator[str]:
    for tier, seconds in advice["seconds_per_page"].items():
        estimate = "" if seconds["measured"] else "  (an estimate)"
        yield f"  {tier:<9} {seconds['one_worker']:>6g} / {seconds['all_workers']:g}{estimate}"


def _models(told: Report) -> Iterator[str]:
    source, backends = told.source, told.backends
    yield f"  source    {source.name.value}: {source.reason}"
    for probe in told.probes:
        reached = "reachable" if probe.reachable else f"not reachable: {probe.detail}"
        yield f"  {probe.source.value:<11} {probe.url} {reached}"
    missing = missing_weights(source.models_dir, backends)
    yield f"  weights   {missing or f'in {source.models_dir}'}"
    yield f"  loaded    {', '.join(f'{backend.value} by workers {backend.workers}' for backend in backends)}"
    vlm = _vlm(told.foresight)
    for server in vlm["own"]:
        yield f"  VLM       one to be started on {server['device']} ({server['engine']})"
    for url in vlm["endpoints"]:
        yield f"  VLM       {url}"


def _vlm(foresight: Foresight) -> dict[str, Any]:
    """Return the VLM servers elsewhere, and those that the server would start here."""
    orders = () if foresight.launch is None else foresight.launch.orders.servers
    return {
        "endpoints": list(foresight.endpoints),
        "own": [{"device": order.device, "engine": order.engine} for order in orders],
    }


def _warned(told: Report) -> Iterator[str]:
    if said := told.all_warnings:
        yield ""
        yield "Warnings"
        yield from (f"  {warning}" for warning in said)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="device_utils.py", description="What this machine can parse documents with.")
    parser.add_argument("--json", action="store_true", help="print the facts as JSON")
    parser.add_argument("--tier", default="auto", choices=list(Tier), help="tier that must fit (default: auto)")
    add_setting_options(parser)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    options = _parser().parse_args(arguments)
    machine = detect()
    try:
        told = report(machine, resolve(vars(options)), tier=options.tier)
    except DocfleetError as exc:
        if options.json:
            print(json.dumps({"machine": machine.to_json(), "error": exc.record(), "exit_status": 2}, indent=2))
        else:
            print(exc.message, file=sys.stderr)
        return _STATUS[Fitness.UNFIT]
    print(json.dumps(facts(told), indent=2) if options.json else describe(told))
    return _STATUS[told.fitness]


if __name__ == "__main__":
    sys.exit(main())
