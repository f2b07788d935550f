"""VLM servers on a machine of their own: `python -m docfleet.launch --servers auto --host 0.0.0.0`.

Prints what to give to the server on the other machine once they answer, keeps them running, and ends them at SIGTERM
or Ctrl-C. Where models come from is MinerU's business here (MINERU_MODEL_SOURCE, MINERU_MODEL_BASE_DIR).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import socket
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from loguru import logger

from docfleet import logs
from docfleet.devices import detect
from docfleet.errors import DocfleetError
from docfleet.launch.engines import NAMES
from docfleet.launch.fleet import plan_launch
from docfleet.launch.launcher import launch
from docfleet.launch.leftovers import end_leftovers, only_one
from docfleet.launch.orders import LaunchOrders
from docfleet.process.lifeline import offer_lifeline
from docfleet.settings import resolve
from docfleet.vlm.local import LocalServer, LocalState

_ON_THEIR_WAY = (LocalState.STARTING, LocalState.LOADING)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the servers until a signal. Return the exit status: 0 after a signal, 2 for what cannot be done."""
    options = _parser().parse_args(argv)
    logs.configure(options.log_level, "vlm-servers")
    try:
        return _run(options)
    except DocfleetError as exc:
        print(f"docfleet.launch: {exc.message}", file=sys.stderr)  # noqa: T201
        return 2


def _run(options: argparse.Namespace) -> int:
    told = {
        "vlm_servers": options.servers,
        "vlm_server_engine": options.engine,
        "vlm_server_command": options.command,
        "vlm_server_args": options.args,
        "vlm_server_port": options.port,
        "vlm_server_memory": options.memory,
        "vlm_server_start_seconds": options.start_seconds,
        "devices": options.devices,
        "log_level": options.log_level,
    }
    settings = resolve(told, {}).settings
    environment = dict(os.environ)
    if options.models_dir is not None:
        environment["MINERU_MODEL_BASE_DIR"] = str(options.models_dir.expanduser().absolute())
    with only_one(options.folder.absolute()):
        end_leftovers(options.folder.absolute())
        planned = plan_launch(settings, detect(), options.folder.absolute(), environment, host=options.host)
        assert planned is not None, "the number of servers is always given"
        for remark in planned.servers.remarks:
            logger.info("{}", remark)
        for warning in planned.servers.warnings:
            logger.warning("{}", warning)
        # The guards follow this process, and this process nobody: it may outlive its terminal.
        offer_lifeline()
        signals = [signal.SIGTERM, signal.SIGINT]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            signals.append(signal.SIGHUP)
        asyncio.run(launch(planned.orders, signals, Announcer(planned.orders, options.advertise)))
    return 0


class Announcer:
    """Prints the servers' addresses once, when all have answered or failed to."""

    def __init__(self, orders: LaunchOrders, advertised: str | None) -> None:
        """`advertised` is this machine's name for others; None: its address, or the name that it has for itself."""
        self._done = False
        host = orders.servers[0].host
        everywhere = host in ("0.0.0.0", "::")  # noqa: S104 - compared with, not listened on
        self._host = advertised or (socket.getfqdn() if everywhere else host)

    def __call__(self, rows: Sequence[LocalServer]) -> None:
        """Look whether it is time."""
        if self._done or any(row.state in _ON_THEIR_WAY for row in rows) or not any(row.served for row in rows):
            return
        self._done = True
        host = f"[{self._host}]" if ":" in self._host else self._host
        addresses = ",".join(f"http://{host}:{row.port}" for row in rows)
        print(f"python server.py --vlm-endpoints {addresses}", flush=True)  # noqa: T201


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m docfleet.launch",
        description="Run VLM servers on the devices of this machine, for a Docfleet server on another one.",
    )
    add = partial(parser.add_argument, metavar="VALUE")
    add("--servers", default="auto", help="how many; auto: one on each accelerator (default)")
    parser.add_argument("--engine", default="auto", choices=NAMES, help="what they run on (default: auto)")
    add("--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 for every interface (default: 127.0.0.1)")
    add("--port", default="30000", help="port of the first of them, if it is free (default: 30000)")
    add("--advertise", help="name or address by which the other machine reaches this one")
    add("--devices", default="auto", help="auto, cpu, or a list such as cuda:0,cuda:1 (default: auto)")
    add("--memory", help="share of a device's memory that its servers take together (default: 0.85)")
    add("--args", default="", help="further options of the engine, as on a command line")
    add("--command", default="mineru-openai-server", help="MinerU's command that starts one")
    add("--models-dir", type=Path, help="folder of model weights (also MINERU_MODEL_BASE_DIR)")
    add("--folder", type=Path, default=Path("vlm-servers"), help="folder of logs and state (default: vlm-servers)")
    add("--start-seconds", default="1800", help="seconds that one gets until it answers (default: 1800)")
    add("--log-level", default="info", help="debug, info, warning or error (default: info)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
