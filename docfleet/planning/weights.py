"""Which weights are fetched: the orders for the program that does it, and waiting for it (`--prefetch`)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from loguru import logger

from docfleet.engine.mineru.orders import BEST, FetchOrders
from docfleet.models.backends import BACKEND_VARIABLE, Backend, kind_of
from docfleet.models.records import ModelSource
from docfleet.models.weights import missing_weights
from docfleet.options import Tier
from docfleet.records import WorkerSlot


def fetch_orders(source: ModelSource, slots: Iterable[WorkerSlot], log_level: str, tier: str = BEST) -> FetchOrders:
    """Return what to fetch: what all workers need together, for the device of each decides which weights it loads."""
    slots = tuple(slots)
    return FetchOrders(
        sources=tuple(hub.value for hub in source.hubs),
        models_dir=source.models_dir,
        tier=tier,
        log_level=log_level,
        environment=slots[0].environment,
        devices=tuple(dict.fromkeys(kind_of(slot.device) for slot in slots)),
    )


def fetch_weights(fetch: FetchOrders, tier: str, backends: Collection[Backend], *, named: bool = False) -> bool:
    """Fetch the weights of a tier (or `BEST`). Return, when it is over, whether all are here.

    Args:
        fetch: the orders for this machine.
        tier: what is wanted.
        backends: the workers that they are for.
        named: whether these were asked for, whatever this machine needs.
    """
    kinds = tuple(backend.value for backend in backends) if named else ()
    with replace(fetch, tier=tier, backends=kinds).start() as fetching:
        done = fetching.wait() == 0
    whom = " and ".join(backend.workers for backend in backends)
    logger.info("weights for workers {} {} in {}", whom, "are" if done else "are not all", fetch.models_dir)
    return done


def lacking(source: Mapping[str, Any], tier: str, backends: Collection[Backend]) -> str:
    """Return what a tier (or `BEST`) lacks where nothing can be fetched, or an empty text if all is here.

    Args:
        source: `ModelSource.to_json()` of one that is offline.
        tier: what is wanted.
        backends: the workers that want it.
    """
    missing = missing_weights(Path(source["models_dir"]), backends)
    if not missing and tier in (BEST, Tier.FLASH, Tier.BASIC):
        return ""
    return f"nothing can be fetched: {source['reason']}. {missing}"


def partly_missing(source: ModelSource, backends: Collection[Backend]) -> str:
    """Return a warning where a folder that cannot be added to holds the weights of other workers; empty elsewhere."""
    if not source.offline or missing_weights(source.models_dir):
        return ""
    missing = missing_weights(source.models_dir, backends)
    if not missing:
        return ""
    kinds = "both" if len(backends) > 1 else next(iter(backends)).value
    # PyTorch's can stand in for nobody: whoever does not load them lacks its packages or an accelerator.
    instead = "" if missing_weights(source.models_dir, [Backend.ONNX]) else f", or set {BACKEND_VARIABLE}=onnx"
    return (
        f"Not every worker can read at tier basic: {missing}. Fetch them where there is a network (`python server.py "
        f"--prefetch --prefetch-backend {kinds}`){instead}."
    )
