"""Start the program that fetches weights. Light to import: the main process and the API process use it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

_MODULE = "docfleet.engine.mineru.prefetch"
_PROJECT = str(Path(__file__).resolve().parents[3])

#: The word for all that the best tier needs which `auto` would take here.
BEST = "auto"


@dataclass(frozen=True, kw_only=True)
class FetchOrders:
    """What to fetch, from where, to where."""

    #: huggingface | modelscope: those that may be used, in order of preference.
    sources: tuple[str, ...]
    models_dir: Path
    #: A tier, or `BEST`.
    tier: str = BEST
    log_level: str = "info"
    #: Seconds before a second try at a file.
    pause: float = 1.0
    #: A worker's, all but the device.
    environment: Mapping[str, str] = field(default_factory=dict)
    #: Families of devices that the workers are on ("cpu", "cuda"): what they need together is fetched. Empty: the one
    #: that the environment names.
    devices: tuple[str, ...] = ()
    #: Kinds of small models to fetch whatever the devices need: "onnx", "torch". Empty: what the devices need.
    backends: tuple[str, ...] = ()

    def start(self) -> subprocess.Popen[str]:
        """Start the program. It ends when it is done, or when its standard input is closed.

        Raises:
            OSError: no process can be started.
        """
        process = subprocess.Popen(  # noqa: S603 - the command is ours
            [sys.executable, "-P", "-m", _MODULE],
            env=os.environ | self.environment | {"PYTHONPATH": _PROJECT},
            stdin=subprocess.PIPE,
            text=True,
        )
        assert process.stdin is not None
        orders = {
            "sources": self.sources,
            "models_dir": str(self.models_dir),
            "tier": self.tier,
            "log_level": self.log_level,
            "pause": self.pause,
            "devices": self.devices,
            "backends": self.backends,
        }
        try:
            process.stdin.write(json.dumps(orders) + "\n")
            process.stdin.flush()
        except BrokenPipeError:
            # It is gone already; its exit status tells.
            pass
        return process
