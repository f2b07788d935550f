"""The shapes of `progress` in `GET /status`."""

from __future__ import annotations

from pydantic import Field

from docfleet.web.shapes import Out as _Out
from docfleet.web.shapes import Text


class DocumentsView(_Out):
    """Documents, since the data folder was made."""

    done: int = Field(description="delivered, in whole or in part, stored results included")
    failed: int
    waiting: int
    running: int


class PagesView(_Out):
    """Pages, since the data folder was made."""

    done: int = Field(
        description="read by workers, of pieces under way, too; what was served from stored results is not read"
    )
    failed: int = Field(description="given up")
    waiting: int = Field(description="accepted and not read")


class DeviceProgress(_Out):
    """What was done on a device, since the data folder was made."""

    device: str = Field(examples=["cuda:0"])
    workers: int = Field(description="planned on it; 0: it did work once, and is not used now")
    busy: int = Field(description="workers that hold a piece of work")
    shards_done: int = Field(description="pieces of work delivered")
    shards_failed: int = Field(description="attempts at one that ended without a result")
    pages_done: int
    pages_failed: int
    pages_per_second: float = Field(description="over the last minute, or the part of it in which there was work")


class EndpointProgress(_Out):
    """What a VLM server did, since it was named to this process."""

    url: Text = Field(examples=["http://10.0.0.5:8001"])
    pages_done: int
    failures: int = Field(description="requests that it did not answer as it should; each was sent elsewhere")
    outstanding: int = Field(description="requests that it has now")
    pages_per_second: float = Field(description="over the last minute, or the part of it in which there was work")
    state: str = Field(description="as in `vlm.endpoints`")


class ProgressView(_Out):
    """How far the server is."""

    documents: DocumentsView
    pages: PagesView
    pages_per_second: float = Field(description="over the last minute, or the part of it in which there was work")
    seconds_left: float | None = Field(description="until all that waits is done; null while no speed was measured")
    since: str = Field(description="when the server began; the counts are older", examples=["2026-11-21T12:00:00Z"])
    devices: list[DeviceProgress]
    endpoints: list[EndpointProgress] = Field(description="VLM servers; empty where there are none")
