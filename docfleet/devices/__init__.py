"""What this machine can compute with, and how many workers that makes.

`detect()` finds facts and never raises; `plan()` turns them into workers and touches nothing. Runs in the main
process, so nothing here imports torch, onnxruntime or MinerU.
"""

from __future__ import annotations

from docfleet.devices.detect import detect
from docfleet.devices.plan import plan
from docfleet.devices.records import Accelerator, Cpu, Fitness, Kind, Machine, Memory, Plan, PlannedWorker, Probe

__all__ = [
    "Accelerator",
    "Cpu",
    "Fitness",
    "Kind",
    "Machine",
    "Memory",
    "Plan",
    "PlannedWorker",
    "Probe",
    "detect",
    "plan",
]
