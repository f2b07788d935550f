"""Making room: between two pages of a long document, the worker looks whether a short one waits for it."""

from __future__ import annotations

import time

from docfleet.records import Claim, Stage
from docfleet.store.claims import Claims

#: Seconds between two looks: pages that take less are not worth one each.
_INTERVAL = 0.02


class MakeRoom(Exception):
    """Raised between two pages: deliver what was read, and let a short document go first."""

    def __init__(self, pages: int) -> None:
        super().__init__(f"a short document waits after {pages} pages")
        self.pages = pages


class Courtesy:
    """Asks for one worker. The rules are the store's (`Claims.short_waits`)."""

    def __init__(self, claims: Claims) -> None:
        self._claims = claims
        self._looked_at = 0.0

    def between_pages(self, claim: Claim, pages_done: int) -> None:
        """Look, now and then.

        Args:
            claim: what is being read.
            pages_done: pages of it that were read.

        Raises:
            MakeRoom: a short document should go first.
        """
        now = time.monotonic()
        left = claim.last_page - claim.first_page + 1 - pages_done
        if claim.stage is not Stage.PAGES or left < 1 or now - self._looked_at < _INTERVAL:
            return
        self._looked_at = now
        if self._claims.short_waits(claim, pages_done):
            raise MakeRoom(pages_done)
