from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from docfleet.files import remove_tree
from docfleet.web.schemas import ErrorAnswer, JobView
from tests.integration.web_house import HOSTILE_HTML, PDF, PNG, House, Work, open_house

ODD_NAMES = ("images/a b#?%41&.png", "images/中文.png", "..md", "image", "a;b,c.json")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with open_house(tmp_path_factory.mktemp("web") / "data") as running:
        yield running


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    with open_house(tmp_path / "data") as running:
        yield running


@pytest.fixture(scope="module")
def done(shared: House) -> dict[str, str]:
    """The `files` of a finished document, and its `job_id`."""
    answer = shared.predict_files({"a.pdf": PDF}).json()
    return {**answer["files"], "job_id": answer["job_id"]}


def code_of(response: requests.Response) -> str:
    return ErrorAnswer.model_validate(response.json()).error.code


def test_a_job_tells_how_it_stands_from_its_first_moment_to_its_end(house: House) -> None:
    house.worker.claiming.clear()
    house.worker.delivering.clear()
    object.__setattr__(house.doors, "wait_timeout", 0.05)
    path = house.predict_files({"a.pdf": PDF}).json()["links"]["job"]

    queued = JobView.model_validate(house.get(path).json())
    assert (queued.state, queued.pages, queued.pages_done, queued.started_at) == ("queued", 1, 0, None)
    assert [(shard.state, shard.attempt, shard.first_page, shard.last_page) for shard in queued.shards] == [
        ("queued", 0, 0, 0)
    ]

    house.worker.claiming.set()
    while (running := house.get(path).json())["state"] == "queued":
        pass
    assert running["state"] == "running"
    assert [(shard["state"], shard["attempt"], shard["worker"]) for shard in running["shards"]] == [("running", 1, 0)]

    house.worker.delivering.set()
    while (ended := house.get(path)).json()["state"] == "running":
        pass
    view = JobView.model_validate(ended.json())
    assert (view.state, view.pages_done, view.error) == ("completed", 1, None)
    assert view.created_at <= (view.started_at or 0) <= (view.finished_at or 0)
    assert "retry-after" not in ended.headers


def test_a_failed_job_says_why_in_its_state_and_as_its_result(house: House) -> None:
    response = house.predict_files({"broken.pdf": PDF, "good.pdf": PDF})
    job_id = response.json()["results"][0]["job_id"]
    view = JobView.model_validate(house.get(f"/jobs/{job_id}").json())
    assert view.state == "failed"
    assert view.error is not None
    assert view.error.code == "broken_document"
    result = house.get(f"/jobs/{job_id}/result")
    assert (result.status_code, code_of(result)) == (422, "broken_document")
    files = house.get(f"/jobs/{job_id}/files/document.md")
    assert (files.status_code, code_of(files)) == (404, "not_found")


@pytest.mark.parametrize(
    "job_id", ["0123456789abcdef" * 2, "1", "A" * 32, "0" * 33, "%2e%2e", "..%2f..%2fetc", "%00", "\ud7ff"]
)
@pytest.mark.parametrize("rest", ["", "/result", "/files/document.md"])
def test_what_is_no_job_is_not_found_with_a_remedy(shared: House, job_id: str, rest: str) -> None:
    response = shared.get(f"/jobs/{job_id}{rest}")
    assert response.status_code == 404
    assert code_of(response) == "not_found"
    assert response.json()["error"]["message"].endswith(".")


def test_the_result_can_be_had_again_and_is_the_same_as_the_first_answer(shared: House) -> None:
    first = shared.predict_files({"a.pdf": PDF}).json()
    assert shared.get(f"/jobs/{first['job_id']}/result").json() == first


def test_results_that_were_removed_are_not_found_and_say_so(house: House) -> None:
    answer = house.predict_files({"a.pdf": PDF}).json()
    remove_tree(Path(answer["output_dir"]))
    for path in (f"/jobs/{answer['job_id']}/result", answer["files"]["document.md"]):
        response = house.get(path)
        assert (response.status_code, code_of(response)) == (404, "not_found")
        assert "gone" in response.json()["error"]["message"]


@pytest.mark.parametrize(
    ("name", "media_type", "content"),
    [
        ("document.md", "text/markdown; charset=utf-8", b"# a.pdf\n\n![](images/x.png)\n"),
        ("document.html", "text/html; charset=utf-8", HOSTILE_HTML),
        ("content_list.json", "application/json", b'[{"type": "text", "text": "a.pdf"}]'),
        ("images/x.png", "image/png", PNG),
    ],
)
def test_a_file_is_sent_as_what_it_is_and_can_do_no_harm_in_a_browser(
    shared: House, done: dict[str, str], name: str, media_type: str, content: bytes
) -> None:
    response = shared.get(done[name])
    assert response.status_code == 200
    assert response.content == content
    assert response.headers["content-type"] == media_type
    assert response.headers["x-content-type-options"] == "nosniff"
    policy = response.headers["content-security-policy"]
    assert policy.startswith("sandbox;")
    assert "allow-scripts" not in policy
    assert "default-src 'none'" in policy
    assert response.headers["content-disposition"].startswith("inline")


def test_a_head_request_tells_the_size_without_the_file(shared: House, done: dict[str, str]) -> None:
    response = requests.head(shared.url + done["document.html"], timeout=30)
    assert (response.status_code, response.content) == (200, b"")
    assert int(response.headers["content-length"]) == len(HOSTILE_HTML)


@pytest.mark.parametrize(
    ("wanted", "status", "content"),
    [
        ("bytes=0-5", 206, HOSTILE_HTML[:6]),
        ("bytes=-4", 206, HOSTILE_HTML[-4:]),
        ("bytes=9999-", 416, None),
        ("bytes=5-2", 400, None),
        ("pages=1-2", 400, None),
    ],
)
def test_ranges_of_a_file_can_be_had_and_impossible_ones_are_refused_in_our_shape(
    shared: House, done: dict[str, str], wanted: str, status: int, content: bytes | None
) -> None:
    response = shared.get(done["document.html"], headers={"Range": wanted})
    assert response.status_code == status
    if content is None:
        assert code_of(response) == "invalid_request"
    else:
        assert response.content == content


def test_a_file_that_the_caller_has_already_is_not_sent_again(shared: House, done: dict[str, str]) -> None:
    etag = shared.get(done["document.md"]).headers["etag"]
    again = shared.get(done["document.md"], headers={"If-None-Match": f'"other", W/{etag}'})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == etag
    assert shared.get(done["document.md"], headers={"If-None-Match": '"other"'}).status_code == 200


def test_names_that_need_quoting_lead_back_to_their_files(house: House) -> None:
    house.worker.work = lambda claim: Work(files={name: name.encode() for name in ODD_NAMES})
    files = house.predict_files({"a.pdf": PDF}).json()["files"]
    assert {name: house.get(url).content for name, url in files.items()} == {name: name.encode() for name in ODD_NAMES}
    unknown = house.get(files["image"])
    assert unknown.headers["content-type"] == "application/octet-stream"
    assert unknown.headers["content-disposition"].startswith("attachment")


def test_a_link_that_leads_out_of_the_result_is_not_followed(house: House, tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    house.worker.work = lambda claim: Work(files={"document.md": b"", "leak.md": b"", "images/x.png": b""})
    answer = house.predict_files({"a.pdf": PDF}).json()
    leak = Path(answer["output_dir"], "leak.md")
    leak.unlink()
    leak.symlink_to(secret)
    response = house.get(answer["files"]["leak.md"])
    assert response.status_code == 404
    assert "secret" not in response.text


def test_a_file_in_the_folder_that_the_report_does_not_list_is_not_served(shared: House, done: dict[str, str]) -> None:
    output = Path(shared.get(f"/jobs/{done['job_id']}/result").json()["output_dir"])
    (output / "notes.txt").write_text("left behind")
    assert shared.get(f"/jobs/{done['job_id']}/files/notes.txt").status_code == 404


PIECES = st.one_of(
    st.sampled_from(
        ["..", ".", "", "images", "x.png", "document.md", "~", "C:", "\\", "\x00", "%2e%2e", "etc", "passwd"]
    ),
    st.text(max_size=8),
)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pieces=st.lists(PIECES, max_size=6), absolute=st.booleans(), quoted=st.booleans())
def test_no_file_name_whatsoever_leads_anywhere_but_to_the_files_made(
    shared: House, done: dict[str, str], pieces: list[str], absolute: bool, quoted: bool
) -> None:
    name = ("/" if absolute else "") + "/".join(pieces)
    raw = quote(name.encode("utf-8", "replace"), safe="" if quoted else "/")
    status, body = raw_get(shared, f"/jobs/{done['job_id']}/files/{raw}")
    if name in done:
        assert status == 200
    else:
        assert status in (307, 404), body
        assert b"root:" not in body


def raw_get(house: House, target: str) -> tuple[int, bytes]:
    """Send the target as it is: HTTP clients tidy `..` away before a server sees it."""
    parts = urlsplit(house.url)
    assert parts.hostname
    assert parts.port
    with socket.create_connection((parts.hostname, parts.port), timeout=20) as connection:
        connection.sendall(f"GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode("ascii"))
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), body
