"""What a worker's engines would make of a document, as one short text: equal fingerprints, equal results."""

from __future__ import annotations

import json
from collections.abc import Sequence
from hashlib import sha256

from docfleet import __version__
from docfleet.engine.interface import Engine, EngineContext
from docfleet.options import Tier, parse_options

#: A document of pages and a picture: between them they need every model there is.
_SUFFIXES = ("pdf", "png")


def fingerprint(engines: Sequence[Engine], context: EngineContext) -> str:
    """Return the fingerprint of loaded engines.

    It changes with their versions and ours, with their order, the kind of device, the model source, the VLM server,
    and with what can run here: that decides what `auto` means.
    """
    options = parse_options(None)
    tiers = [tier for tier in Tier if tier is not Tier.AUTO]
    told = {
        "docfleet": __version__,
        "device": context.device.partition(":")[0],
        "models": context.model_source,
        "vlm": list(context.vlm_identity) or context.vlm_server_url,
        "engines": [
            [
                engine.name,
                engine.version,
                [[tier, suffix] for tier in tiers for suffix in _SUFFIXES if not engine.missing(tier, suffix, options)],
            ]
            for engine in engines
        ],
    }
    return sha256(json.dumps(told).encode()).hexdigest()[:32]
