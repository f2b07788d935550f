"""A document that kills workers does it once, not each time it is sent. Real server, real signals."""

from __future__ import annotations

from pathlib import Path

import requests

from tests.serving import FAULTY, Serving, blank_pdf, running, wait_until

OPTIONS = ("--workers", "1", "--spares", "1", "--engines", FAULTY, "--max-attempts", "1", "--poison-hours", "1")


def serving_pid(serving: Serving) -> int:
    """The process in the only slot, once it is ready."""
    found = wait_until(lambda: [w["pid"] for w in serving.workers() if w["state"] in ("ready", "busy")], seconds=60)
    return int(found[0])


def test_a_document_that_killed_workers_is_read_without_its_bad_page_until_it_is_forgotten(tmp_path: Path) -> None:
    # Made once: a PDF holds the moment of its making.
    document = blank_pdf(2)
    with running(tmp_path / "data", *OPTIONS) as serving:
        assert serving.get("/poison") == {"documents": []}
        first = serving.predict(document, "page-1-die-a.pdf", timeout=120).json()
        assert (first["status"], [page["page"] for page in first["failed_pages"]]) == ("partial", [1])
        (remembered,) = serving.get("/poison")["documents"]
        # The whole, and then each half by itself.
        assert (remembered["filename"], remembered["deaths"]) == ("page-1-die-a.pdf", 2)
        assert [page["page"] for page in remembered["pages"]] == [1]
        assert 3500 < remembered["until"] - remembered["since"] < 4500

        worker = serving_pid(serving)
        second = serving.predict(document, "page-1-die-b.pdf").json()
        assert (second["status"], second["pages"]) == ("partial", 1)
        assert second["failed_pages"][0]["cause"].startswith(first["failed_pages"][0]["cause"])
        refused = serving.predict(document, "page-1-die-b.pdf", start_page_id="1")
        assert (refused.status_code, refused.json()["error"]["code"]) == (422, "poisoned_document")
        assert not refused.json()["error"]["retryable"]
        assert serving_pid(serving) == worker, "nothing died any more"

        address = f"{serving.url}/poison/{remembered['sha256']}"
        assert requests.delete(address, timeout=10).json() == {"forgotten": 1}
        assert requests.delete(address, timeout=10).status_code == 404
        assert requests.delete(f"{serving.url}/poison", timeout=10).json() == {"forgotten": 0}
        assert serving.get("/poison") == {"documents": []}
        healthy = serving.predict(document, "healthy.pdf").json()
        assert (healthy["status"], healthy["pages"]) == ("completed", 2)
