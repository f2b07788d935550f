"""How long a shard may take, and how long a failed one waits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from docfleet.options import Tier
from docfleet.records import Stage
from docfleet.settings import Settings

_FIRST_DELAY = 0.5
_LONGEST_DELAY = 30.0


@dataclass(frozen=True)
class Deadlines:
    """Seconds for a shard: a base, and more for each page, by tier."""

    base: float
    by_tier: Mapping[Tier, float]

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Return what the settings say."""
        return cls(
            settings.deadline_base,
            {
                Tier.FLASH: settings.page_seconds_flash,
                Tier.BASIC: settings.page_seconds_basic,
                Tier.STANDARD: settings.page_seconds_standard,
                Tier.ADVANCED: settings.page_seconds_advanced,
            },
        )

    def seconds(self, stage: Stage, tier: Tier, pages: int) -> float:
        """Return how long a worker may hold a shard, a probe until its pages are read.

        The document stage of every tier is flash's kind of work: joining, headings, rendering.
        """
        flash, own = self.by_tier[Tier.FLASH], self.by_tier[tier]
        page = {Stage.PAGES: own, Stage.PROBE: own, Stage.DOCUMENT: flash}.get(stage, max(own, flash))
        return self.base + page * pages

    def at_most(self, pages: int) -> float:
        """Return the bound for a shard whose worker has not said its tier."""
        return self.base + max(self.by_tier.values()) * pages


def retry_delay(attempt: int) -> float:
    """Return the seconds before the attempt after number `attempt` (from 1): doubling, bounded."""
    return float(min(_FIRST_DELAY * 2 ** min(attempt - 1, 10), _LONGEST_DELAY))
