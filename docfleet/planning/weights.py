"""Which weights are fetched: the orders for the program that does it, and waiting for it (`--prefetch`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from loguru import logger

from docfleet.engine.mineru.orders import BEST, FetchOrders
from docfleet.models.records import ModelSource
from docfleet.models.weights import missing_weights
from docfleet.options import Tier
from docfleet.records import WorkerSlot


def fetch_orders(source: ModelSource, slot: WorkerSlot, log_level: str, tier: str = BEST) -> FetchOrders:
    """Return what to fetch; the device of a worker decides which weights it needs."""
    return FetchOrders(
        sources=tuple(hub.value for hub in source.hubs),
        models_dir=source.models_dir,
        tier=tier,
        log_level=log_level,
        environment=slot.environment,
    )


def fetch_weights(fetch: FetchOrders, tier: str) -> bool:
    """Fetch the weights of a tier (or `BEST`). Return, when it is over, whether all are here."""
    with replace(fetch, tier=tier).start() as fetching:
        done = fetching.wait() == 0
    logger.info("weights {} in {}", "are" if done else "are not all", fetch.models_dir)
    return done


def lacking(source: Mapping[str, Any], tier: str) -> str:
    """Return what a tier (or `BEST`) lacks where nothing can be fetched, or an empty text if all is here.

    Args:
        source: `ModelSource.to_json()` of one that is offline.
        tier: what is wanted.
    """
    missing = missing_weights(Path(source["models_dir"]))
    if not missing and tier in (BEST, Tier.FLASH, Tier.BASIC):
        return ""
    return f"nothing can be fetched: {source['reason']}. {missing}"
