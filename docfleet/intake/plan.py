"""Into which shards a document is cut."""

from __future__ import annotations

from docfleet.options import ParseOptions
from docfleet.records import Document, ShardPlan, Stage


def plan_shards(document: Document, options: ParseOptions) -> list[ShardPlan]:
    """Return the shards that together read the wanted pages, in page order: now one, which does both stages.

    Raises:
        InvalidPageRange: the wanted pages lie outside the document.
    """
    first, last = options.page_range(document.pages)
    return [ShardPlan(stage=Stage.WHOLE, first_page=first, last_page=last)]
