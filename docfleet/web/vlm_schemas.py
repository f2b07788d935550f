"""The shape of a VLM server that this server runs itself, in `GET /vlm/endpoints` and `/status`."""

from __future__ import annotations

from pydantic import Field

from docfleet.vlm.local import LocalState
from docfleet.web.shapes import Out as _Out
from docfleet.web.shapes import Text


class VlmServer(_Out):
    """A VLM server that this server runs itself; it is one of the endpoints, too."""

    id: str = Field(description="of its endpoint")
    device: str
    engine: str
    url: Text
    port: int
    state: LocalState = Field(
        description="backing_off: it ended and is started again in a moment; failed: it ended several times in a row"
    )
    reason: Text = Field(description="why it is not ready, or what it says while it loads")
    pid: int | None = Field(description="leader of its processes' group; null: none runs")
    restarts: int
    uptime: float | None = Field(description="seconds since its process was started")
    next_try: float | None = Field(description="seconds until it is started again")
    log: Text = Field(description="its log file, in the data folder")
