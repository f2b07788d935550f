"""Real documents through the doors of the real server, with the engines that ship."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.serving import ROOT, Serving, running

SAMPLES = ROOT / "samples"
#: The address of a picture, in Markdown and in the HTML of table cells.
PICTURE = re.compile(r"""(?<=\]\()[^)\s]+(?=\))|(?<=src=")[^"]+(?=")""")


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    with running(tmp_path_factory.mktemp("documents") / "data", "--workers", "2") as serving:
        yield serving


def parse(serving: Serving, path: Path, **options: str) -> dict[str, Any]:
    response = serving.predict(path.read_bytes(), path.name, timeout=240, **options)
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    return body


def direct(path: Path) -> str:
    """Markdown of MinerU's own parser, called in a process of its own."""
    code = (
        "import sys\n"
        "from mineru.parser import MinerUParser\n"
        "if __name__ == '__main__':\n"
        "    sys.stdout.reconfigure(encoding='utf-8')\n"
        "    print(MinerUParser(tier='flash').parse(sys.argv[1]).markdown(), end='')\n"
    )
    environ = {"MINERU_MODEL_SOURCE": "local", "MINERU_LOG_LEVEL": "error", "PATH": "/usr/bin:/bin"}
    command = [sys.executable, "-c", code, str(path)]
    return subprocess.run(command, capture_output=True, check=True, env=environ, cwd=path.parent).stdout.decode()


@pytest.mark.needs("documents")
@pytest.mark.parametrize("name", ["paper-13p.pdf", "report.docx"])
def test_the_markdown_equals_that_of_mineru_called_directly(serving: Serving, documents: Path, name: str) -> None:
    answer = parse(serving, documents / name, tier="flash")
    assert PICTURE.sub("picture", answer["markdown"]) == PICTURE.sub("picture", direct(documents / name))
    pictures = {target for target in PICTURE.findall(answer["markdown"]) if not target.startswith(("http", "#"))}
    assert pictures
    assert pictures <= set(answer["files"])


@pytest.mark.needs("documents")
def test_a_chinese_scan_is_read_without_models_and_the_answer_says_how(serving: Serving, documents: Path) -> None:
    answer = parse(serving, documents / "scan-zh-3p.pdf")
    assert (answer["engine"], answer["tier"], answer["pages"]) == ("embedded", "flash", 3)
    assert len(re.findall(r"[\u4e00-\u9fff]", answer["markdown"])) > 500
    assert any("model" in warning for warning in answer["warnings"])


@pytest.mark.parametrize(
    ("name", "engine", "words"),
    [
        ("report.pdf", "mineru", ["Groundwater in the Lower Valley", "forty-two wells", "Terrace 7"]),
        ("letter-scan.pdf", "embedded", ["logbooks of the pumping station", "flood of February 1962"]),
        ("minutes.docx", "mineru", ["Minutes of the spring meeting", "new roof", "Ms Brandt"]),
    ],
)
def test_a_digital_page_a_scan_and_an_office_file_come_back_as_text(
    serving: Serving, name: str, engine: str, words: list[str]
) -> None:
    answer = parse(serving, SAMPLES / name)
    assert answer["status"] == "completed"
    assert answer["engine"] == engine
    text = " ".join(answer["markdown"].split())
    for word in words:
        assert word in text
    assert (Path(answer["output_dir"]) / "document.md").read_text() == answer["markdown"]


def test_the_client_brings_the_same_text_as_the_door(serving: Serving, tmp_path: Path) -> None:
    paths = [SAMPLES / name for name in ("report.pdf", "letter-scan.pdf", "minutes.docx")]
    command = [sys.executable, "client.py", *map(str, paths), "--out", str(tmp_path / "out"), "--url", serving.url]
    subprocess.run(command, cwd=ROOT, check=True, timeout=240)
    for path in paths:
        (saved,) = (tmp_path / "out").rglob(f"{path.stem}.md")
        assert saved.read_text() == parse(serving, path)["markdown"]


def test_every_format_is_made_on_request_and_can_be_fetched(serving: Serving) -> None:
    formats = "markdown,content_list,content_list_v2,middle_json,structured_content,model_output,html,latex,docx"
    answer = parse(serving, SAMPLES / "report.pdf", formats=formats)
    kinds = {Path(name).suffix for name in answer["files"] if not name.startswith("images/")}
    assert kinds == {".md", ".json", ".html", ".tex", ".docx"}
    assert len(answer["files"]) >= 9
    for name, url in answer["files"].items():
        response = requests.get(serving.url + url, timeout=10)
        assert response.status_code == 200, name
        assert response.content
    content = requests.get(serving.url + answer["files"]["content_list.json"], timeout=10).json()
    assert any("forty-two wells" in item.get("text", "") for item in content)


def test_a_page_range_brings_those_pages_under_their_own_numbers(serving: Serving, tmp_path: Path) -> None:
    pdf = tmp_path / "numbers.pdf"
    make_numbered(pdf, 5)
    answer = parse(serving, pdf, start_page_id="1", end_page_id="2")
    assert answer["pages"] == 2
    assert "number 2." in answer["markdown"]
    assert "number 4." not in answer["markdown"]
    content = requests.get(serving.url + answer["files"]["content_list.json"], timeout=10).json()
    assert {item["page_idx"] for item in content} == {1, 2}


def make_numbered(path: Path, pages: int) -> None:
    from reportlab.pdfgen.canvas import Canvas

    canvas = Canvas(str(path))
    for page in range(1, pages + 1):
        for line in range(12):
            canvas.drawString(72, 700 - 20 * line, f"This is line {line + 1} of the page that bears the number {page}.")
        canvas.showPage()
    canvas.save()


def test_tables_and_formulas_can_be_switched_off(serving: Serving) -> None:
    with_table = parse(serving, SAMPLES / "minutes.docx")
    without = parse(serving, SAMPLES / "minutes.docx", table_enable="false")
    assert "Ms Brandt" in with_table["markdown"]
    assert "Ms Brandt" not in without["markdown"]
    assert "Minutes of the spring meeting" in without["markdown"]


def test_a_tier_that_cannot_run_is_refused_with_what_is_missing(serving: Serving) -> None:
    response = serving.predict((SAMPLES / "report.pdf").read_bytes(), "report.pdf", tier="advanced")
    assert response.status_code == 503
    error = response.json()["error"]
    assert error["code"] == "tier_unavailable"
    assert "MINERU_" in error["message"] or "install" in error["message"]


def test_json_with_base64_and_raw_bytes_bring_the_same_as_multipart(serving: Serving) -> None:
    content = (SAMPLES / "report.pdf").read_bytes()
    expected = parse(serving, SAMPLES / "report.pdf")["markdown"]
    bare = requests.post(f"{serving.url}/predict", json={"file": base64.b64encode(content).decode()}, timeout=60)
    raw = requests.post(
        f"{serving.url}/predict?filename=report.pdf",
        data=content,
        headers={"Content-Type": "application/pdf"},
        timeout=60,
    )
    assert bare.json()["markdown"] == raw.json()["markdown"] == expected


def test_one_bad_document_among_several_leaves_the_others_their_results(serving: Serving) -> None:
    files = [
        {"file": base64.b64encode((SAMPLES / "report.pdf").read_bytes()).decode(), "filename": "report.pdf"},
        {"file": base64.b64encode(b"%PDF-1.7 and then nothing").decode(), "filename": "broken.pdf"},
        {"file": base64.b64encode((SAMPLES / "minutes.docx").read_bytes()).decode(), "filename": "minutes.docx"},
    ]
    body = requests.post(f"{serving.url}/predict", json={"files": files}, timeout=120).json()
    assert (body["succeeded"], body["failed"]) == (2, 1)
    assert "error" in body["results"][1]
    assert "Groundwater" in body["results"][0]["markdown"]
    assert "spring meeting" in body["results"][2]["markdown"]


@pytest.mark.parametrize("form", ["multipart", "raw", "json"])
def test_a_200_mb_upload_grows_the_api_process_by_at_most_32_mb(serving: Serving, form: str, tmp_path: Path) -> None:
    api = serving.api()
    serving.predict(b"warm", "warm.bin")
    before = api.memory_info().rss
    peak = before
    done = threading.Event()

    def sample() -> None:
        nonlocal peak
        while not done.is_set():
            peak = max(peak, api.memory_info().rss)
            time.sleep(0.005)

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        response = upload(serving, form, tmp_path)
    finally:
        done.set()
        thread.join()
    assert response.status_code == 415, response.text
    assert (peak - before) / 2**20 <= 32


def upload(serving: Serving, form: str, tmp_path: Path) -> requests.Response:
    block = b"\x00\x01\x02" * (1 << 18)
    blocks = 200 * 2**20 // len(block)
    head = {"multipart": "multipart/form-data; boundary=edge", "raw": "application/octet-stream"}

    def body() -> Iterator[bytes]:
        if form == "multipart":
            yield b'--edge\r\nContent-Disposition: form-data; name="files"; filename="a.bin"\r\n\r\n'
        if form == "json":
            yield b'{"file": "'
        for _ in range(blocks):
            yield base64.b64encode(block) if form == "json" else block
        if form == "multipart":
            yield b"\r\n--edge--\r\n"
        if form == "json":
            yield b'"}'

    headers = {"Content-Type": head.get(form, "application/json")}
    return requests.post(f"{serving.url}/predict?filename=a.bin", data=body(), headers=headers, timeout=120)


def test_nothing_refused_leaves_anything_on_disk(serving: Serving) -> None:
    before = {path.name for path in (serving.data / "jobs").iterdir()}
    for content, name, options in [
        (b"", "empty.pdf", {}),
        (b"\x00\x01\x02\x03", "what.bin", {}),
        (b"%PDF-1.7 and then nothing", "broken.pdf", {}),
        ((SAMPLES / "report.pdf").read_bytes(), "report.pdf", {"start_page_id": "7"}),
        ((SAMPLES / "report.pdf").read_bytes(), "report.pdf", {"colour": "red"}),
        ((SAMPLES / "report.pdf").read_bytes(), "report.pdf", {"tier": "turbo"}),
        ((SAMPLES / "report.pdf").read_bytes(), "report.pdf", {"server_url": "http://127.0.0.1:1/"}),
    ]:
        response = serving.predict(content, name, **options)
        assert 400 <= response.status_code < 500, (name, options, response.text)
        assert set(response.json()["error"]) >= {"code", "message", "retryable"}
    assert list((serving.data / "incoming").iterdir()) == []
    assert {path.name for path in (serving.data / "jobs").iterdir()} == before


def test_the_description_of_the_api_is_served_with_examples(serving: Serving) -> None:
    document = serving.get("/openapi.json")
    assert {"/predict", "/jobs/{job_id}", "/status", "/livez", "/readyz"} <= set(document["paths"])
    assert "example" in json.dumps(document["paths"]["/predict"])
    assert document["info"]["title"] == "Docfleet"


def test_the_addresses_are_told_at_docs_even_where_the_page_cannot_be_drawn(serving: Serving) -> None:
    page = requests.get(f"{serving.url}/docs", timeout=30)
    assert page.headers["content-type"].startswith("text/html")
    # Within the element that the script draws into, if it comes.
    listed = page.text.partition('<div id="swagger-ui">')[2].partition("<script")[0]
    for told in ("POST /predict", "DELETE /jobs/{job_id}", "Parse documents and wait for the result", "/openapi.json"):
        assert told in listed
