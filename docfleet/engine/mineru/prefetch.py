"""Fetch the weights of a tier: a program of its own, `python -m docfleet.engine.mineru.prefetch`.

Orders come as one line of JSON on standard input: {"sources", "models_dir", "tier", "log_level", "pause", "devices",
"backends"}. It ends with status 0 once all is here, with 1 and a line on standard error if it cannot be, and when its
input closes: whoever started it is gone then. What is needed where is MinerU's knowledge and read from its registry;
hubs are `docfleet.models`' business.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loguru import logger

from docfleet import logs
from docfleet.engine.mineru.orders import BEST
from docfleet.errors import DocfleetError, TierUnavailable
from docfleet.models.fetching import Wanted, fetch
from docfleet.models.progress import Fetching, mark_arrival, read_status, write_status
from docfleet.models.records import Source
from docfleet.options import Tier

if TYPE_CHECKING:
    from mineru.model.download import ModelRepo

#: MinerU's variable for the device of a process.
_DEVICE_VARIABLE = "MINERU_DEVICE_MODE"


def main() -> int:
    """Carry out the orders."""
    # Ctrl-C reaches every process of a terminal; this one ends with its parent.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    orders: dict[str, Any] = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    logs.configure(orders["log_level"], "models")
    models_dir = Path(orders["models_dir"])
    before = read_status(models_dir)
    try:
        came = _fetch_all(orders, models_dir)
    except DocfleetError as exc:
        write_status(models_dir, Fetching(state="failed", error=exc.message))
        logger.error("{}", exc.message)
        return 1
    if before is not None and before.state != "done" and not came:
        # Whoever put the last one in its place was killed before it said so.
        mark_arrival(models_dir)
    write_status(models_dir, Fetching(state="done"))
    return 0


def _fetch_all(orders: dict[str, Any], models_dir: Path) -> bool:
    """Fetch what is wanted; what cannot be had keeps nothing else from coming. Return whether there was anything.

    Raises:
        DocfleetError: what was said of the first that did not come.
    """
    repositories = wanted_repositories(orders["tier"], orders["devices"], orders["backends"])
    logger.info("weights for tier {}: {}", orders["tier"], ", ".join(repo.name for repo in repositories) or "none")
    came, failures = False, []
    for repo in repositories:
        try:
            came = _fetch(repo, orders, models_dir) or came
        except DocfleetError as exc:
            failures.append(exc)
    if failures:
        raise failures[0]
    return came


def _fetch(repo: ModelRepo, orders: dict[str, Any], models_dir: Path) -> bool:
    """Fetch from the first hub that delivers; return whether there was anything to fetch.

    Raises:
        DocfleetError: what the last hub said.
    """
    ids = {Source(name): name_there for name, name_there in repo.repos.items()}
    paths = () if repo.download_mode == "full" else tuple(repo.paths.values())
    wanted = Wanted(name=repo.local_name, ids=ids, paths=paths)
    *others, last = [Source(name) for name in orders["sources"]]
    for source in others:
        try:
            return fetch(wanted, source, models_dir, partial(_is_here, repo), pause=orders["pause"])
        except TierUnavailable as exc:
            logger.warning("{} The next hub is tried.", exc.message)
    return fetch(wanted, last, models_dir, partial(_is_here, repo), pause=orders["pause"])


def wanted_repositories(tier: str, devices: Sequence[str] = (), backends: Sequence[str] = ()) -> list[ModelRepo]:
    """Return what a tier needs on all of these devices, each repository once; flash needs nothing.

    Args:
        tier: a tier, or `BEST`.
        devices: families of devices; none: the one that the environment names.
        backends: kinds of small models, whatever the devices need; none: what they need.
    """
    from mineru.model.registry import small_model_repo

    if tier == Tier.FLASH:
        return []
    wanted = {repo.name: repo for repo in map(small_model_repo, backends)}
    for device in devices or (None,):
        for repo in _needed_on(device, tier, small=not backends):
            wanted.setdefault(repo.name, repo)
    return list(wanted.values())


def _needed_on(device: str | None, tier: str, *, small: bool) -> Iterator[ModelRepo]:
    from mineru.config import config
    from mineru.model.registry import small_model_repo, vlm_model_repo
    from mineru.model.runtime.device import module_available
    from mineru.model.vlm.selector import VLM_REQUIRED_MODULES, resolve_vlm_engine

    if device is not None:
        # MinerU asks for it anew each time it decides what a device runs.
        os.environ[_DEVICE_VARIABLE] = device
    if small:
        yield small_model_repo()
    if tier == Tier.BASIC or config.model.vlm.server_url:
        return
    engine = resolve_vlm_engine()
    if tier != BEST or all(module_available(name) for name in VLM_REQUIRED_MODULES[engine]):
        yield vlm_model_repo(engine)


def _is_here(repo: ModelRepo) -> bool:
    from mineru.model.download import verify_model_repo

    return bool(verify_model_repo(repo).ready)


def _end_with_parent() -> None:
    sys.stdin.read()
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
