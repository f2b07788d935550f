"""Which engine reads a document, and at which tier.

A tier asked for by name runs or is refused. `auto` takes the best that can run here. Formats that carry their own
text (Office, HTML, EPUB, CSV) are always read at flash: that is MinerU's rule, no model has anything to add.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from docfleet.engine.interface import Engine
from docfleet.errors import ReaderUnavailable, TierUnavailable
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

    @property
    def reader(self) -> str:
        """What a document that is cut is read by, in all its shards: "engine/tier"."""
        return f"{self.engine.name}/{self.tier.value}"


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
        return _first(engines, suffix, (Tier.FLASH,), options)
    return _first(engines, suffix, _AUTO_ORDER if wanted is Tier.AUTO else (wanted,), options)


def chosen(engines: Sequence[Engine], suffix: str, options: ParseOptions, reader: str) -> Choice:
    """Return the choice that was made when the document was cut, whatever would be chosen now.

    Args:
        engines: loaded engines.
        suffix: type of the document.
        options: what the caller wants.
        reader: `Choice.reader`.

    Raises:
        ReaderUnavailable: it cannot run here.
    """
    name, _, value = reader.rpartition("/")
    reason = f"engine {name} is not here."
    for engine in engines:
        if engine.name == name:
            missing = engine.missing(Tier(value), suffix, options)
            if missing is None:
                return Choice(engine, Tier(value), _not_given(suffix, options))
            reason = missing
    raise ReaderUnavailable(
        f"Engine {name} began to read the document at tier {value}, and cannot go on: {reason} "
        "Send the document again: it is then read from its beginning by what can run."
    )


def why_not(engines: Sequence[Engine], tier: Tier) -> str:
    """Return why no engine reads PDFs at this tier here, in one line; empty if one does."""
    options = parse_options(None)
    reasons = [(engine.name, engine.missing(tier, "pdf", options)) for engine in engines]
    if not all(reason for _, reason in reasons):
        return ""
    return f"tier {tier}: " + " ".join(f"{name}: {reason}" for name, reason in reasons)


def _not_given(suffix: str, options: ParseOptions) -> tuple[str, ...]:
    wanted = options.wanted_tier
    if suffix in TIERED_SUFFIXES or wanted in (Tier.AUTO, Tier.FLASH):
        return ()
    return (f"{suffix} files are always read at tier flash; {wanted} was not used",)


def _first(engines: Sequence[Engine], suffix: str, tiers: Sequence[Tier], options: ParseOptions) -> Choice:
    reasons: list[str] = []
    for tier in tiers:
        for engine in engines:
            reason = engine.missing(tier, suffix, options)
            if reason is None:
                return Choice(engine, tier, _not_given(suffix, options))
            reasons.append(f"{engine.name}: {reason}")
    raise TierUnavailable(f"Tier {options.wanted_tier} cannot run here. " + " ".join(dict.fromkeys(reasons)))
