"""`shards=fast` at every door of the real server."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import aiohttp
import requests

from client import mineru_parse_async
from tests.equality_set import book
from tests.serving import Serving, running, wait_ready


def stages(serving: Serving, body: dict[str, Any]) -> list[str]:
    return [shard["stage"] for shard in serving.get(f"/jobs/{body['job_id']}")["shards"]]


async def test_a_digital_document_is_cut_where_the_caller_asks_for_it_and_told_so_and_stored_apart(
    tmp_path: Path,
) -> None:
    source = tmp_path / "book.pdf"
    book(source, 50)
    content = source.read_bytes()
    with running(tmp_path / "data", "--workers", "2", "--reuse-results") as serving:
        wait_ready(serving, workers=2)
        exact = serving.predict(content, "book.pdf", 200).json()
        assert stages(serving, exact) == ["whole"]
        assert exact["warnings"] == []

        fast = requests.post(
            f"{serving.url}/predict",
            json={
                "file": base64.b64encode(content).decode(),
                "filename": "book.pdf",
                "options": {"shards": "fast"},
            },
            timeout=200,
        ).json()
        pieces = stages(serving, fast)
        assert pieces[-1] == "document"
        assert pieces.count("pages") == len(pieces) - 1 > 1
        (told,) = fast["warnings"]
        assert told.startswith("shards=fast: ")
        assert "may differ" in told
        assert not fast["cached"]
        # Nothing in this book is among what may differ.
        assert fast["markdown"] == exact["markdown"]

        async with aiohttp.ClientSession() as session:
            again = await mineru_parse_async(session, source, url=serving.url, shards="fast")
        assert (again["cached"], again["warnings"]) == (True, [told])

        refused = requests.post(
            f"{serving.url}/predict?filename=book.pdf&shards=turbo",
            data=content,
            headers={"Content-Type": "application/pdf"},
            timeout=60,
        )
        assert 400 <= refused.status_code < 500
        assert "shards" in refused.json()["error"]["message"]
