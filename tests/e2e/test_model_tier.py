"""Tier basic through the real server, on weights of the tests' own making: cut over workers, and what goes wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests import tiny_models
from tests.integration.hub_house import closed_port
from tests.integration.weights_hub import weights_hub
from tests.mineru_support import files_of
from tests.model_pages import make_pages
from tests.model_path import WINDOW, ask, worker_environment
from tests.serving import Serving, running, stop, wait_ready, wait_until

PAGES = 20
LAYOUT = "Layout/PP-DocLayoutV2/inference.onnx"
FORMATS = "markdown,content_list,middle_json,model_output"


def server_environment(models: Path) -> dict[str, str]:
    return {"MINERU_MODEL_BASE_DIR": str(models), "MINERU_PROCESSING_WINDOW_SIZE": str(WINDOW)}


@pytest.fixture
def models(tmp_path: Path) -> Path:
    tiny_models.make(tmp_path / "models")
    return tmp_path / "models"


def basic(serving: Serving, source: Path, **options: str) -> dict[str, Any]:
    response = serving.predict(source.read_bytes(), source.name, 240, tier="basic", **options)
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    return body


def test_a_document_cut_over_two_workers_at_tier_basic_is_what_mineru_makes_of_it_and_a_bad_page_is_left_out(
    tmp_path: Path, models: Path
) -> None:
    source = make_pages(tmp_path / "pages.pdf", PAGES)
    with running(tmp_path / "data", "--workers", "2", **server_environment(models)) as serving:
        wait_ready(serving, workers=2)
        body = basic(serving, source, method="txt", formats=FORMATS)
        assert (body["status"], body["tier"], body["engine"], body["pages"]) == ("completed", "basic", "mineru", PAGES)
        shards = [shard for shard in serving.get(f"/jobs/{body['job_id']}")["shards"] if shard["stage"] == "pages"]
        assert {shard["worker"] for shard in shards} == {0, 1}
        assert all(shard["first_page"] % WINDOW == 0 for shard in shards)

        # The layout network fails on a page that is black all over.
        bad = basic(serving, make_pages(tmp_path / "bad.pdf", 5, black={4}), method="txt")
        assert bad["status"] == "partial"
        assert [failed["page"] for failed in bad["failed_pages"]] == [4]
        assert "MinerU gave up" in bad["failed_pages"][0]["cause"]
        assert [f"Marker{page:03d}" in bad["markdown"] for page in range(5)] == [True] * 4 + [False]
        # `auto` takes the best tier there is.
        assert serving.predict(make_pages(tmp_path / "one.pdf", 1).read_bytes(), "one.pdf").json()["tier"] == "basic"

    direct = {"source": str(source), "method": "txt", "output": str(tmp_path / "direct")}
    ask(worker_environment(models, tmp_path / "home"), ("parse_directly", direct))
    expected, made = files_of(tmp_path / "direct"), files_of(Path(body["output_dir"]))
    names = {"markdown.md": "document.md", "middle_json.json": "middle.json"}
    del expected["structured_content.json"]
    for name, content in expected.items():
        assert made[names.get(name, name)] == content, name


def test_damaged_weights_leave_a_server_that_reads_at_flash_and_says_why_not_at_basic(
    tmp_path: Path, models: Path
) -> None:
    path = models / tiny_models.REPOSITORY / "Table/unet.onnx"
    path.write_bytes(path.read_bytes()[:300])
    source = make_pages(tmp_path / "pages.pdf", 2)
    with running(tmp_path / "data", "--workers", "1", **server_environment(models)) as serving:
        refused = serving.predict(source.read_bytes(), source.name, tier="basic")
        assert refused.status_code == 503
        assert refused.json()["error"]["code"] == "tier_unavailable"
        assert "Table/unet.onnx" in refused.json()["error"]["message"]
        # The answer is given before the worker has tidied up.
        wait_until(lambda: [one["state"] for one in serving.workers()] == ["ready"], 30)
        assert "Table/unet.onnx" in serving.workers()[0]["detail"]
        answered = serving.predict(source.read_bytes(), source.name)
        assert answered.status_code == 200
        assert answered.json()["tier"] == "flash"
        assert stop(serving) == 0


def test_a_server_that_reached_no_hub_says_so_in_its_workers_and_in_what_it_refuses(tmp_path: Path) -> None:
    source = make_pages(tmp_path / "pages.pdf", 1)
    nowhere = dict.fromkeys(("HF_ENDPOINT", "MODELSCOPE_ENDPOINT"), "http://127.0.0.1:9")
    online = {"HF_HUB_OFFLINE": "0", "TRANSFORMERS_OFFLINE": "0", "MINERU_MODEL_SOURCE": "auto"}
    home = {"MINERU_HOME": str(tmp_path / "nobody"), "MINERU_MODEL_BASE_DIR": str(tmp_path / "none")}
    with running(tmp_path / "data", "--workers", "1", **nowhere, **online, **home) as serving:
        wait_ready(serving, workers=1)
        assert serving.get("/status")["model_source"]["name"] == "embedded"
        wait_until(lambda: "No model hub could be reached" in serving.workers()[0]["detail"], 30)
        refused = serving.predict(source.read_bytes(), source.name, tier="basic")
        assert refused.status_code == 503
        message = refused.json()["error"]["message"]
        assert "No model hub could be reached when the server started: start it again" in message
        assert serving.predict(source.read_bytes(), source.name).json()["tier"] == "flash"
        assert stop(serving) == 0


def test_a_server_whose_weights_come_from_a_hub_serves_at_once_and_at_tier_basic_when_they_are_here(
    tmp_path: Path, models: Path
) -> None:
    source = make_pages(tmp_path / "pages.pdf", 2).read_bytes()
    online = {"HF_HUB_OFFLINE": "0", "TRANSFORMERS_OFFLINE": "0", "MINERU_MODEL_BASE_DIR": str(tmp_path / "here")}
    with weights_hub(models / tiny_models.REPOSITORY) as hub:
        hub.hold_at = 0
        # `auto`: the hub is asked for a small file first.
        with running(tmp_path / "data", "--workers", "2", **hub.environment("auto"), **online) as serving:
            wait_ready(serving, workers=2)
            assert serving.predict(source, "pages.pdf").json()["tier"] == "flash"
            refused = serving.predict(source, "pages.pdf", tier="basic")
            assert refused.status_code == 503
            assert "not on this machine yet" in refused.json()["error"]["message"]
            wait_until(lambda: serving.get("/status")["model_source"].get("fetching", {}).get("total_bytes"), 60)
            assert serving.get("/status")["model_source"]["fetching"]["state"] == "fetching"
            hub.go.set()
            # Both workers leave for ones that have the weights, one after the other.
            wait_until(lambda: all(one["state"] == "ready" and not one["detail"] for one in serving.workers()), 120)
            assert basic(serving, tmp_path / "pages.pdf", method="txt")["tier"] == "basic"
            assert serving.predict(source, "pages.pdf").json()["tier"] == "basic"
            wait_until(lambda: serving.get("/status")["model_source"]["fetching"]["state"] == "done", 30)
            # The one that was held may have been asked for again; no other was.
            assert {count for name, count in hub.transfers.items() if name != LAYOUT} == {1}
            assert stop(serving) == 0
    # And from then on without a network.
    offline = {"MINERU_MODEL_BASE_DIR": str(tmp_path / "here"), "HF_ENDPOINT": closed_port()}
    with running(tmp_path / "data", "--workers", "1", **offline) as serving:
        assert basic(serving, tmp_path / "pages.pdf", method="txt")["tier"] == "basic"
