"""The pool of VLM servers through the real server: MinerU's upper tiers, servers that die and return."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
from PIL import Image

from tests.serving import Serving, blank_pdf, gone, running, start, wait_ready, wait_until
from tests.vlm_house import TEXT, Standin, standins
from tests.vlm_weights import make_weights

#: Asks the servers and computes nothing; it reads tier advanced, and MinerU the others.
ASKER = "tests.vlm_engine:PageAsker"
KEYS = ("hush-0", "hush-1", "hush-2", "hush-3")


@pytest.fixture(scope="module")
def houses() -> Iterator[list[Standin]]:
    with standins(5, "--seconds", "0.1", each=[("--key", key) for key in (*KEYS, "hush-4")]) as houses:
        yield houses


@pytest.fixture(scope="module")
def serving(houses: list[Standin], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    folder = tmp_path_factory.mktemp("vlm")
    options = ["--workers", "2", "--overcommit-cpu", "--engines", f"{ASKER},mineru", "--log-level", "debug"]
    options += ["--models-dir", str(make_weights(folder / "models")), "--allowed-server-urls", houses[4].url]
    servers = ",".join(house.url for house in houses[:4])
    keys = ",".join(KEYS)
    with running(folder / "data", *options, DOCFLEET_VLM_ENDPOINTS=servers, DOCFLEET_VLM_API_KEYS=keys) as serving:
        wait_ready(serving, 2, seconds=240)
        wait_until(lambda: states(serving) == ["up"] * 4, 60)
        yield serving


def endpoints(serving: Serving) -> dict[str, dict[str, Any]]:
    return {row["url"]: row for row in serving.get("/vlm/endpoints")["endpoints"]}


def states(serving: Serving) -> list[str]:
    return [row["state"] for row in endpoints(serving).values()]


def read(serving: Serving, pages: int, **options: str) -> dict[str, Any]:
    body = serving.predict(blank_pdf(pages), "pages.pdf", timeout=240, tier="advanced", **options)
    assert body.status_code == 200, body.text
    told: dict[str, Any] = body.json()
    assert told["failed_pages"] == []
    assert told["markdown"].split("\n\n") == [TEXT] * pages
    return told


def pages_read(houses: list[Standin]) -> list[int]:
    return [house.seen()["pages"] for house in houses]


def picture() -> bytes:
    sink = io.BytesIO()
    Image.new("RGB", (400, 560), "white").save(sink, "PNG")
    return sink.getvalue()


def test_mineru_reads_a_document_at_tier_standard_with_what_the_servers_say(
    serving: Serving, houses: list[Standin]
) -> None:
    answer = serving.predict(picture(), "page.png", timeout=240, tier="standard")
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert (body["tier"], body["engine"], body["pages"], body["failed_pages"]) == ("standard", "mineru", 1, [])
    assert body["markdown"].strip() == TEXT
    for house in houses:
        assert house.seen()["refused"] == []


def test_all_servers_share_the_pages_and_status_tells_of_each(serving: Serving, houses: list[Standin]) -> None:
    before = pages_read(houses)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: read(serving, 12), range(2)))
    gained = [after - earlier for after, earlier in zip(pages_read(houses), before, strict=True)]
    assert sum(gained) == 24
    assert all(gained[:4])
    assert gained[4] == 0
    shown = serving.get("/status")["vlm"]
    assert [row["url"] for row in shown["endpoints"]] == [house.url for house in houses[:4]]
    assert all(row["state"] == "up" and row["done"] > 0 and row["has_key"] for row in shown["endpoints"])


def test_the_pages_of_each_server_are_told_as_the_server_itself_counts_them(
    serving: Serving, houses: list[Standin]
) -> None:
    read(serving, 4)
    told = serving.get("/status")["progress"]["endpoints"]
    assert {row["url"]: row["pages_done"] for row in told} == {house.url: house.seen()["pages"] for house in houses[:4]}
    assert all(row["state"] == "up" and row["outstanding"] == 0 for row in told)
    assert sum(row["pages_per_second"] for row in told) > 0


def test_a_server_that_is_killed_in_mid_run_and_returns_costs_no_page(serving: Serving, houses: list[Standin]) -> None:
    over = threading.Event()

    def go_on_reading() -> None:
        while not over.is_set():
            read(serving, 12)

    with ThreadPoolExecutor(2) as pool:
        reading = [pool.submit(go_on_reading) for _ in range(2)]
        try:
            wait_until(lambda: endpoints(serving)[houses[3].url]["in_flight"] > 0, 60)
            houses[3].kill()
            wait_until(lambda: endpoints(serving)[houses[3].url]["state"] == "down", 60)
            houses[3].begin()
            houses[3].wait()
            wait_until(lambda: houses[3].seen()["pages"] > 0, 120)
        finally:
            over.set()
        for one in reading:
            one.result()


def test_a_killed_router_costs_no_page(serving: Serving, houses: list[Standin]) -> None:
    before = sum(pages_read(houses))
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(read, serving, 30)
        wait_until(lambda: sum(pages_read(houses)) > before + 3, 60)
        (router,) = routers(serving)
        router.kill()
        reading.result()
    wait_until(lambda: serving.get("/status")["vlm"]["available"], 60)
    assert [process.pid for process in routers(serving)] != [router.pid]


def test_a_server_is_added_used_drained_and_left_alone(serving: Serving, houses: list[Standin]) -> None:
    spare = houses[4]
    address = f"{serving.url}/vlm/endpoints"
    added = requests.post(address, json={"url": spare.url + "/v1", "api_key": "hush-4"}, timeout=30)
    assert added.status_code == 200, added.text
    row = wait_until(lambda: (found := endpoints(serving).get(spare.url)) and found["state"] == "up" and found, 60)

    def used() -> bool:
        read(serving, 16)
        return int(spare.seen()["pages"]) > 0

    wait_until(used, 120)
    assert requests.delete(f"{address}/{row['id']}", timeout=30).status_code == 200
    wait_until(lambda: spare.url not in endpoints(serving), 60)
    before = spare.seen()["asked"]
    read(serving, 16)
    assert spare.seen()["asked"] == before
    assert requests.delete(f"{address}/{row['id']}", timeout=30).status_code == 404


def test_a_caller_may_name_several_allowed_servers_and_only_those_are_used(
    serving: Serving, houses: list[Standin]
) -> None:
    before = pages_read(houses)
    named = houses[:2]
    read(serving, 12, server_url=json.dumps([house.url for house in named]))
    gained = [after - earlier for after, earlier in zip(pages_read(houses), before, strict=True)]
    assert sum(gained[:2]) == 12
    assert gained[2:] == [0, 0, 0]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"url": "http://169.254.169.254"}, 403),
        ({"url": "http://127.0.0.1:1"}, 403),
        ({"url": "ftp://x"}, 422),
        ({"url": "http://u:hush@x/"}, 422),
        ({"key": "hush"}, 400),
        ({"url": "ALLOWED", "api_key": "hush\r\nX-Other: 1"}, 422),
        ([], 400),
    ],
)
def test_what_the_settings_do_not_allow_is_not_added(
    serving: Serving, houses: list[Standin], body: Any, status: int
) -> None:
    if isinstance(body, dict) and body.get("url") == "ALLOWED":
        body = {**body, "url": houses[4].url}
    answer = requests.post(f"{serving.url}/vlm/endpoints", json=body, timeout=30)
    assert answer.status_code == status, answer.text
    assert "hush" not in answer.text
    one_of_them = serving.predict(
        blank_pdf(1), "a.pdf", tier="advanced", server_url=f"{next(iter(endpoints(serving)))},http://127.0.0.1:1"
    )
    assert one_of_them.status_code == 403


def test_no_key_is_in_a_log_an_answer_or_a_workers_view(serving: Serving) -> None:
    shown = json.dumps(serving.get("/status")) + json.dumps(serving.get("/vlm/endpoints")) + serving.log.read_text()
    for process in serving.family():
        shown += " ".join(process.cmdline())
    for worker in serving.workers():
        shown += json.dumps(psutil.Process(worker["pid"]).environ())
    (router,) = routers(serving)
    assert "hush" not in shown + json.dumps(router.environ())


def test_a_killed_server_leaves_no_router_behind(houses: list[Standin], tmp_path: Path) -> None:
    serving = start(
        tmp_path / "data", "--workers", "1", "--engines", ASKER, "--allowed-server-urls", houses[0].url, wait=False
    )
    try:
        (router,) = wait_until(lambda: routers(serving), 120)
        family = serving.family()
        assert router in family
        serving.process.kill()
        gone(family, 60)
    finally:
        serving.process.kill()
        serving.process.wait()


def test_a_document_outlives_an_outage_of_all_servers_and_a_restart_keeps_what_was_added(tmp_path: Path) -> None:
    nobody = "http://127.0.0.1:1"
    with standins(1, "--seconds", "0.05", "--key", "hush-5") as (house,):
        options = ["--workers", "1", "--engines", ASKER, "--vlm-patience", "1", "--vlm-endpoints", nobody]
        options += ["--allowed-server-urls", house.url]
        serving = start(tmp_path / "data", *options, wait=False)
        try:
            wait_until(lambda: routers(serving), 120)
            body = {"url": house.url, "api_key": "hush-5"}
            wait_until(lambda: told(f"{serving.url}/vlm/endpoints", body), 60)
        finally:
            family = serving.family()
            serving.process.kill()
            serving.process.wait()
            gone(family, 60)
        with running(tmp_path / "data", *options) as again:
            wait_until(lambda: endpoints(again)[house.url]["state"] == "up", 60)
            read(again, 2)
            house.kill()
            files = {"files": ("pages.pdf", blank_pdf(3))}
            job = requests.post(f"{again.url}/jobs", files=files, data={"tier": "advanced"}, timeout=60).json()
            # As often as a document is tried whose own fault it is: this one is not at fault.
            tried = wait_until(lambda: (j := again.get(f"/jobs/{job['job_id']}"))["attempts"] > 3 and j, 120)
            assert tried["state"] in ("queued", "running")
            house.begin()
            wait_until(lambda: again.get(f"/jobs/{job['job_id']}")["state"] == "completed", 120)
            assert "hush" not in serving.log.read_text()


def test_a_server_without_a_pool_uses_what_is_added_at_once_and_refuses_again_when_all_is_drained(
    tmp_path: Path,
) -> None:
    with standins(1, "--seconds", "0.05", "--key", "hush-6") as (house,):
        options = ["--workers", "1", "--engines", "mineru", "--models-dir", str(make_weights(tmp_path / "models"))]
        options += ["--allowed-server-urls", house.url, "--vlm-patience", "1"]
        with running(tmp_path / "data", *options, wait=False) as serving:
            wait_ready(serving, 1, seconds=240)
            assert "POST /vlm/endpoints" in refusal(serving)
            body = {"url": house.url, "api_key": "hush-6"}
            wait_until(lambda: told(f"{serving.url}/vlm/endpoints", body), 60)
            wait_until(lambda: endpoints(serving)[house.url]["state"] == "up", 60)
            for tier in ("standard", "advanced"):
                answer = wait_until(lambda tier=tier: well(ask(serving, tier)), 60)
                assert (answer["tier"], answer["markdown"].strip()) == (tier, TEXT)
            assert house.seen()["pages"] > 0
            row = endpoints(serving)[house.url]
            assert requests.delete(f"{serving.url}/vlm/endpoints/{row['id']}", timeout=30).ok
            wait_until(lambda: not endpoints(serving) and ask(serving, "standard").status_code == 503, 60)
            assert "POST /vlm/endpoints" in refusal(serving)
            assert "hush" not in serving.log.read_text()


def ask(serving: Serving, tier: str) -> requests.Response:
    return serving.predict(picture(), "page.png", timeout=240, tier=tier, cache="false")


def well(answer: requests.Response) -> dict[str, Any] | None:
    return answer.json() if answer.status_code == 200 else None


def refusal(serving: Serving) -> str:
    answer = ask(serving, "standard")
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (503, "tier_unavailable"), answer.text
    return str(error["message"])


def told(url: str, body: dict[str, Any]) -> bool:
    try:
        return requests.post(url, json=body, timeout=30).ok
    except requests.ConnectionError:
        # The router is there before the doors are open.
        return False


def routers(serving: Serving) -> list[psutil.Process]:
    found = []
    for process in serving.family():
        try:
            if "docfleet.vlm.main" in " ".join(process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found
