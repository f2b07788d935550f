"""The router's pool where the server started without one: servers may be added while it runs, and drained again."""

from __future__ import annotations

import json
import time
from http.client import HTTPConnection, HTTPException
from urllib.parse import urlsplit

from docfleet.addresses import WHOLE_POOL

#: Seconds for which an answer is good: a document asks several times, and all of them shall hear the same.
_GOOD_FOR = 1.0
#: Seconds that the router may take. One that was just started again is waited for by others, not here.
_PATIENCE = 2.0


class LatePool:
    """Asks the router, and nobody else, whether the pool has a server by now."""

    def __init__(self, router: str) -> None:
        """Know nothing yet; `router` is the address that segments are put behind."""
        self._router = router
        self._filled = False
        self._asked_at: float | None = None

    @property
    def url(self) -> str | None:
        """The pool as if it were one VLM server; None while it has no server. A server that is down counts."""
        if self._asked_at is None or time.monotonic() - self._asked_at > _GOOD_FOR:
            self._ask()
            self._asked_at = time.monotonic()
        return f"{self._router}/{WHOLE_POOL}" if self._filled else None

    def _ask(self) -> None:
        parts = urlsplit(self._router)
        # No library that heeds proxies: the word in the address is for the router alone.
        connection = HTTPConnection(parts.hostname or "", parts.port, timeout=_PATIENCE)
        try:
            connection.request("GET", f"{parts.path}/status")
            rows = json.loads(connection.getresponse().read())["endpoints"]
            self._filled = any(row["pooled"] and row["state"] != "draining" for row in rows)
        except (OSError, HTTPException, ValueError, KeyError):
            # A router that dies takes no server out of the pool: what it told last holds.
            pass
        finally:
            connection.close()
