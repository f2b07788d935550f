"""Where models come from, decided against real servers; and that MinerU then does as it is told."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from loguru import logger

from _config_endpoint import ModelSource, Source, hub_endpoints, missing_weights, resolve_model_source
from docfleet.errors import ConfigurationError
from docfleet.models.weights import REPOSITORIES
from tests.integration import hub_house as house
from tests.weights_folder import fill

ROOT = Path(__file__).resolve().parents[2]
#: Seconds: long enough for a hub on this machine, short enough to wait for one that hangs.
PATIENCE = 2.0


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """What is logged, one entry a message."""
    kept: list[str] = []
    sink = logger.add(lambda message: kept.append(str(message)), format="{level}: {message}", level="INFO")
    yield kept
    logger.remove(sink)


def decide(
    tmp_path: Path,
    huggingface: str,
    modelscope: str,
    *,
    timeout: float = 30.0,
    models_dir: Path | None = None,
    **environ: str,
) -> ModelSource:
    """Decide against two addresses, with nobody's own models in reach."""
    return resolve_model_source(
        {"MINERU_HOME": str(tmp_path / "nobody")} | environ,
        home=tmp_path / "home",
        models_dir=models_dir,
        timeout=timeout,
        endpoints={Source.HUGGINGFACE: huggingface, Source.MODELSCOPE: modelscope},
    )


def test_hugging_face_is_taken_where_it_answers_and_asked_for_a_file_of_the_real_repository(
    tmp_path: Path, lines: list[str]
) -> None:
    with house.hub(house.answers(200)) as first, house.hub(house.hangs) as second:
        decided = decide(tmp_path, first.url, second.url)
    assert decided.name is Source.HUGGINGFACE
    (request,) = first.requests
    assert request.startswith("HEAD /opendatalab/MinerU-4_models_onnx/resolve/main/OCR/")
    assert decided.environment()["MINERU_MODEL_SOURCE"] == "huggingface"
    assert "HF_HUB_OFFLINE" not in decided.environment()
    (line,) = lines
    assert line.startswith("INFO: Model source: huggingface (")


def test_the_slower_hub_is_taken_if_it_is_the_preferred_one(tmp_path: Path) -> None:
    def late(handler: house.BaseHTTPRequestHandler, hub: house.Hub) -> None:
        hub.held.wait(0.7)
        house.answers(200)(handler, hub)

    with house.hub(late) as first, house.hub(house.answers(200)) as second:
        assert decide(tmp_path, first.url, second.url).name is Source.HUGGINGFACE


def test_a_redirect_to_where_the_file_is_counts_as_an_answer(tmp_path: Path) -> None:
    with (
        house.hub(house.answers(200)) as store,
        house.hub(lambda handler, hub: house.answers(302, Location=store.url)(handler, hub)) as first,
        house.hub(house.hangs) as second,
    ):
        assert decide(tmp_path, first.url, second.url).name is Source.HUGGINGFACE


@pytest.mark.parametrize(
    ("behaviour", "told"),
    [
        (house.answers(503), "status 503"),
        (house.answers(401), "status 401"),
        (house.answers(404), "status 404"),
        (house.hangs, "no answer"),
        (house.dribbles, "no answer within 2 s"),
        (house.resets, "no connection"),
        (house.closes, "no connection"),
        (house.talks_nonsense, "no connection"),
        (house.redirects_in_a_loop, "more than 5 redirects"),
        (house.redirects_slowly, "no answer within 2 s"),
    ],
    ids=lambda value: getattr(value, "__name__", None) if callable(value) else str(value).replace(" ", "_"),
)
def test_a_hugging_face_that_fails_leads_to_modelscope_with_one_line(
    tmp_path: Path, lines: list[str], behaviour: house.Behaviour, told: str
) -> None:
    with house.hub(behaviour) as first, house.hub(house.answers(200)) as second:
        decided = decide(tmp_path, first.url, second.url, timeout=PATIENCE if "no answer" in told else 30)
        # The hub still holds the request here: what came back did not wait for it.
        assert not first.held.is_set()
    assert decided.name is Source.MODELSCOPE
    (request,) = second.requests
    assert request.startswith(
        "HEAD /api/v1/models/OpenDataLab/MinerU-4_models_onnx/repo?Revision=master&FilePath=OCR%2F"
    )
    failed, chosen = lines
    assert failed.startswith(f"WARNING: No models from huggingface: {first.url}, ")
    assert told in failed
    assert failed.count("\n") == 1
    assert chosen.startswith("INFO: Model source: modelscope (")
    assert decided.environment()["MINERU_MODEL_SOURCE"] == "modelscope"


def test_a_certificate_that_nobody_vouches_for_is_no_answer(tmp_path: Path, lines: list[str]) -> None:
    certificate = house.self_signed(tmp_path)
    with house.hub(house.answers(200), certificate=certificate) as first, house.hub(house.answers(200)) as second:
        assert decide(tmp_path, first.url, second.url).name is Source.MODELSCOPE
    assert "no trusted TLS connection" in lines[0]
    assert "certificate verify failed" in lines[0]


def test_a_certificate_of_the_companys_own_authority_is_trusted_where_the_environment_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = house.self_signed(tmp_path)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate[0]))
    with house.hub(house.answers(200), certificate=certificate) as first:
        assert decide(tmp_path, first.url, house.closed_port()).name is Source.HUGGINGFACE


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("http://no-such-host.invalid", "no connection"),
        ("http://[bad", "cannot be used"),
        ("no-scheme.example", "cannot be used"),
        ("ftp://127.0.0.1", "cannot be used"),
        ("http://user:pass word@ \n", "cannot be used"),
    ],
)
def test_an_address_that_leads_nowhere_moves_on_in_one_line(
    tmp_path: Path, lines: list[str], address: str, told: str
) -> None:
    with house.hub(house.answers(200)) as second:
        assert decide(tmp_path, address, second.url).name is Source.MODELSCOPE
    assert told in lines[0]
    assert lines[0].count("\n") == 1
    assert "pass" not in lines[0]


def test_a_proxy_that_fails_moves_on(tmp_path: Path, lines: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", house.closed_port())
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with house.hub(house.answers(200)) as second:
        decided = decide(tmp_path, "http://hub.example.org", second.url)
    assert decided.name is Source.MODELSCOPE
    assert "the proxy failed" in lines[0]


def test_a_password_in_an_address_is_neither_logged_nor_kept(tmp_path: Path, lines: list[str]) -> None:
    with house.hub(house.answers(503)) as first:
        secret = first.url.replace("://", "://someone:hunter2@")
        decided = decide(tmp_path, secret, secret)
        assert len(first.requests) == 2
    for text in (*lines, json.dumps(decided.to_json()), repr(decided)):
        assert "hunter2" not in text
    assert [probe.url for probe in decided.probes] == [first.url, first.url]


def test_with_both_hubs_down_a_folder_of_weights_is_taken_and_else_the_embedded_engine(
    tmp_path: Path, lines: list[str]
) -> None:
    down = house.closed_port()
    decided = decide(tmp_path, down, down, models_dir=fill(tmp_path / "models"))
    assert decided.name is Source.LOCAL
    assert [line.partition(":")[0] for line in lines] == ["WARNING", "WARNING", "INFO"]
    assert decided.environment() == {
        "MINERU_MODEL_SOURCE": "local",
        "MINERU_MODEL_BASE_DIR": str(tmp_path / "models"),
        "MINERU_HOME": str(tmp_path / "home"),
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
    }
    lines.clear()
    bare = decide(tmp_path, down, down, models_dir=tmp_path / "empty")
    assert bare.name is Source.EMBEDDED
    assert [line.partition(":")[0] for line in lines] == ["WARNING", "WARNING", "WARNING", "INFO"]
    assert bare.environment()["MINERU_MODEL_SOURCE"] == "local"
    assert bare.environment()["HF_HUB_OFFLINE"] == "1"


@pytest.mark.parametrize("word", ["huggingface", "modelscope", "local", "embedded", " ModelScope "])
def test_a_source_that_is_set_wins_and_nobody_is_asked(tmp_path: Path, word: str) -> None:
    with house.hub(house.answers(200)) as hub:
        decided = decide(tmp_path, hub.url, hub.url, MINERU_MODEL_SOURCE=word)
        assert hub.requests == []
    assert decided.name == word.strip().lower()
    assert decided.probes == ()


def test_the_next_hub_may_deliver_where_the_first_does_not_unless_the_user_chose_one(tmp_path: Path) -> None:
    with house.hub(house.answers(200)) as up:
        both = decide(tmp_path, up.url, up.url)
        second = decide(tmp_path, house.closed_port(), up.url)
    assert both.hubs == (Source.HUGGINGFACE, Source.MODELSCOPE)
    assert second.hubs == (Source.MODELSCOPE,)
    assert decide(tmp_path, "", "", MINERU_MODEL_SOURCE="huggingface").hubs == (Source.HUGGINGFACE,)
    assert decide(tmp_path, "", "", MINERU_MODEL_SOURCE="local").hubs == ()


@pytest.mark.parametrize("word", ["auto", "", "AUTO"])
def test_auto_counts_as_not_set(tmp_path: Path, word: str) -> None:
    with house.hub(house.answers(200)) as hub:
        decided = decide(tmp_path, hub.url, hub.url, MINERU_MODEL_SOURCE=word)
    assert decided.name is Source.HUGGINGFACE


def test_a_source_that_means_nothing_is_refused_with_the_words_that_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="huggingface, modelscope, local, embedded"):
        decide(tmp_path, "http://x", "http://y", MINERU_MODEL_SOURCE="hugginface")


def test_local_without_weights_is_obeyed_and_what_is_missing_is_logged(tmp_path: Path, lines: list[str]) -> None:
    assert decide(tmp_path, "", "", MINERU_MODEL_SOURCE="local").name is Source.LOCAL
    assert lines[0].startswith("WARNING: Model source local is set, but there is no folder")


def test_hugging_face_is_left_alone_where_the_environment_says_offline(tmp_path: Path) -> None:
    with house.hub(house.answers(200)) as first, house.hub(house.answers(200)) as second:
        decided = decide(tmp_path, first.url, second.url, HF_HUB_OFFLINE="1")
        assert first.requests == []
    assert decided.name is Source.MODELSCOPE


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, ["https://huggingface.co", "https://modelscope.cn"]),
        ({"HF_ENDPOINT": "https://mirror.example"}, ["https://mirror.example", "https://modelscope.cn"]),
        ({"MODELSCOPE_ENDPOINT": "https://a.example"}, ["https://huggingface.co", "https://a.example"]),
        ({"MODELSCOPE_DOMAIN": "b.example"}, ["https://huggingface.co", "https://b.example"]),
    ],
)
def test_hubs_are_where_their_own_libraries_look_for_them(environ: dict[str, str], expected: list[str]) -> None:
    assert list(hub_endpoints(environ).values()) == expected


def test_the_folder_of_models_is_the_one_set_then_the_users_own_if_it_holds_weights(tmp_path: Path) -> None:
    users = tmp_path / "users"
    asked = {"MINERU_MODEL_SOURCE": "embedded", "MINERU_HOME": str(users)}
    home = tmp_path / "home"
    assert resolve_model_source(asked, home=home).models_dir == home / "models"
    fill(users / "models")
    assert resolve_model_source(asked, home=home).models_dir == users / "models"
    set_by_user = asked | {"MINERU_MODEL_BASE_DIR": str(tmp_path / "set")}
    assert resolve_model_source(set_by_user, home=home).models_dir == tmp_path / "set"
    assert resolve_model_source(set_by_user, home=home, models_dir=tmp_path / "given").models_dir == tmp_path / "given"


@pytest.mark.parametrize("repository", list(REPOSITORIES))
def test_a_folder_counts_only_with_every_file_and_no_stand_ins(tmp_path: Path, repository: str) -> None:
    assert "there is no folder" in missing_weights(tmp_path / "none")
    assert "holds no weights" in missing_weights(tmp_path)
    fill(tmp_path, repository)
    assert missing_weights(tmp_path) == ""
    weights = tmp_path / repository / "Table/unet.onnx"
    for stand_in in (b"", b"version https://git-lfs.github.com/spec/v1\noid sha256:0"):
        weights.write_bytes(stand_in)
        assert "lacks 1 of" in missing_weights(tmp_path)
        assert "Table/unet.onnx" in missing_weights(tmp_path)


def test_a_folder_of_weights_counts_only_with_minerus_marker(tmp_path: Path) -> None:
    fill(tmp_path, "MinerU-4_models_torch")
    (tmp_path / "MinerU-4_models_torch/OCR/paddleocr/.mineru_complete").unlink()
    assert "OCR/paddleocr" in missing_weights(tmp_path)
    (tmp_path / "MinerU-4_models_torch/.mineru_complete").touch()
    assert missing_weights(tmp_path) == ""


def mineru(program: str, environment: dict[str, str], user: Path) -> str:
    """Run a program that imports MinerU as a user whose home is `user`."""
    base = {name: value for name, value in os.environ.items() if not name.startswith(("MINERU_", "HF_"))}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=base | {"HOME": str(user)} | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_mineru_asks_for_the_same_files_and_obeys_the_decision(tmp_path: Path) -> None:
    user = tmp_path / "user"
    user.mkdir()
    down = house.closed_port()
    decided = decide(tmp_path, down, down, models_dir=fill(tmp_path / "models"))
    program = (
        "import json\nfrom mineru.config import config, get_config_file_path\n"
        "from mineru.model import download, registry\n"
        "repos = {repo.name: sorted(repo.paths.values()) for repo in registry.MODEL_REPOS[:2]}\n"
        "ready = {repo.name: download.verify_model_repo(repo).ready for repo in registry.MODEL_REPOS[:2]}\n"
        "path = registry.MINERU_4_MODELS_ONNX.ocr_det.ensure()\n"
        "print(json.dumps([repos, ready, str(path), config.model.source, get_config_file_path(),"
        " download.MODEL_COMPLETE_MARKER]))"
    )
    repos, ready, path, source, config_file, marker = json.loads(mineru(program, decided.environment(), user))
    assert repos == {name: sorted(parts) for name, parts in REPOSITORIES.items()}
    assert ready == {"MinerU-4_models_onnx": True, "MinerU-4_models_torch": False}
    assert Path(path).is_relative_to(tmp_path / "models")
    assert source == "local"
    assert Path(config_file).is_relative_to(tmp_path / "home")
    assert marker == ".mineru_complete"
    assert not (user / ".mineru").exists()


def test_mineru_fetches_nothing_where_the_embedded_engine_was_chosen(tmp_path: Path) -> None:
    user = tmp_path / "user"
    user.mkdir()
    with house.hub(house.answers(200)) as hub:
        down = house.closed_port()
        decided = decide(tmp_path, down, down)
        assert decided.name is Source.EMBEDDED
        program = (
            "from mineru.model.registry import MINERU_4_MODELS_ONNX as repo\n"
            "try:\n    repo.ocr_det.ensure()\nexcept FileNotFoundError as exc:\n    print('missing')"
        )
        environment = decided.environment() | {"HF_ENDPOINT": hub.url, "MODELSCOPE_ENDPOINT": hub.url}
        assert mineru(program, environment, user).strip() == "missing"
        assert hub.requests == []
    assert not (user / ".mineru").exists()
