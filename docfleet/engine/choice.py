"""Which engine reads a document, and at which tier.

A tier asked for by name runs or is refused. `auto` takes the best that can run here. Formats that carry their own
text (Office, HTML, EPUB, CSV) are always read at flash: that is MinerU's rule, no model has anything to add.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from docfleet.engine.interface import Engine
from docfleet.errors import TierUnavailable
from docfleet.options import ParseOptions, Tier, parse_options

#: Types whose pages are pictures to a model; for all others the tier does not matter.
TIERED_SUFFIXES = frozenset({"pdf", "png", "jpg", "jpeg", "tiff", "webp", "bmp", "gif", "jp2"})

#: What `auto` tries, best first. Advanced is the slowest and only taken when asked for.
_AUTO_ORDER = (Tier.STANDARD, Tier.BASIC, Tier.FLASH)


@dataclass(frozen=True)
class Choice:
    """An engine and the tier it runs at."""

    engine: Engine
    tier: Tier
    #: What the caller asked for and does not get.
    warnings: tuple[str, ...] = ()


def choose(engines: Sequence[Engine], suffix: str, options: ParseOptions) -> Choice:
    """Choose for one document.

    Args:
        engines: loaded engines, in order of preference within a tier.
        suffix: type of the document.
        options: what the caller wants.

    Raises:
        TierUnavailable: the tier asked for cannot run here; the message says what is missing and how to get it.
    """
    wanted = options.wanted_tier
    if suffix not in TIERED_SUFFIXES:
        given = wanted in (Tier.AUTO, Tier.FLASH)
        warnings = () if given else (f"{suffix} files are always read at tier flash; {wanted} was not used",)
        return _first(engines, suffix, (Tier.FLASH,), options, warnings)
    return _first(engines, suffix, _AUTO_ORDER if wanted is Tier.AUTO else (wanted,), options)


def why_not(engines: Sequence[Engine], tier: Tier) -> str:
    """Return why no engine reads PDFs at this tier here, in one line; empty if one does."""
    options = parse_options(None)
    reasons = [(engine.name, engine.missing(tier, "pdf", options)) for engine in engines]
    if not all(reason for _, reason in reasons):
        return ""
    return f"tier {tier}: " + " ".join(f"{name}: {reason}" for name, reason in reasons)


def _first(
    engines: Sequence[Engine], suffix: str, tiers: Sequence[Tier], options: ParseOptions, warnings: tuple[str, ...] = ()
) -> Choice:
    reasons: list[str] = []
    for tier in tiers:
        for engine in engines:
            reason = engine.missing(tier, suffix, options)
            if reason is None:
                return Choice(engine, tier, warnings)
            reasons.append(f"{engine.name}: {reason}")
    raise TierUnavailable(f"Tier {options.wanted_tier} cannot run here. " + " ".join(dict.fromkeys(reasons)))
