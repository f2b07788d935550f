"""`device_utils.py` tells of the server that would run: same settings, decisions, refusals."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from _config_endpoint import Source, probe_chosen, resolve_model_source
from docfleet.devices import detect
from docfleet.files import DataFolder
from docfleet.launch.planning import free_ports
from docfleet.planning import assemble_fleet, foresee, take_pool
from docfleet.settings import resolve
from tests.integration import hub_house as house

ROOT = Path(__file__).resolve().parents[2]
_OTHERS = (
    "DOCFLEET_",
    "MINERU_",
    "OMP_",
    "CUDA_",
    "VLLM_",
    "HF_",
    "TRANSFORMERS_",
    "MODELSCOPE_",
    "MAX_WORKERS",
    "USE_",
)
CLEAN = {
    name: value
    for name, value in os.environ.items()
    if not name.startswith(_OTHERS) and not name.lower().endswith("_proxy")
}


def run(program: str, *options: str, **environ: str) -> tuple[int, str, str]:
    """Run one of the two programs without a network."""
    chosen = {"MINERU_MODEL_SOURCE": "local"} | environ
    command = [sys.executable, program, *options]
    done = subprocess.run(command, cwd=ROOT, env=CLEAN | chosen, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def told(*options: str, **environ: str) -> dict[str, Any]:
    code, output, errors = run("device_utils.py", "--json", *options, **environ)
    assert code in (0, 1), errors
    facts: dict[str, Any] = json.loads(output)
    return facts


@pytest.mark.parametrize("options", [(), ("--json",)], ids=["text", "json"])
@pytest.mark.parametrize(
    ("more", "environ"),
    [
        ((), {"DOCFLEET_DEVICES": "cuda:77"}),
        ((), {"DOCFLEET_REQUIRE_ACCELERATOR": "true", "DOCFLEET_DEVICES": "cpu"}),
        ((), {"DOCFLEET_WORKERS": "many"}),
        (("--engines", "no-such-engine"), {}),
        (("--config", "no-such-file.toml"), {}),
        (("--data-dir", "README.md"), {}),
        (("--data-dir", "README.md/below"), {}),
        (("--vlm-servers", "1", "--vlm-server-command", "no-such-command"), {}),
        (("--vlm-endpoints", "http://a,http://b,http://c", "--vlm-api-keys", "x,y"), {}),
        (("--devices", "cpu"), {"MINERU_MODEL_SOURCE": "elsewhere"}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_where_the_server_refuses_to_start_the_report_says_the_same(
    tmp_path: Path, more: tuple[str, ...], environ: dict[str, str], options: tuple[str, ...]
) -> None:
    environ = {"DOCFLEET_DATA_DIR": str(tmp_path / "data")} | environ
    code, _, refusal = run("server.py", "--port", str(free_ports("127.0.0.1", 21000)(1)[0]), *more, **environ)
    assert code == 2
    code, output, errors = run("device_utils.py", *options, *more, **environ)
    assert code == 2
    words = json.loads(output)["error"]["message"] if options else errors.strip()
    assert words in refusal
    assert words


def test_environment_settings_file_and_options_count_as_they_do_for_the_server(tmp_path: Path) -> None:
    (tmp_path / "fleet.toml").write_text('devices = "cpu"\nworkers = 1\nspares = 0\n', encoding="utf-8")
    environ = {"DOCFLEET_CONFIG": str(tmp_path / "fleet.toml"), "DOCFLEET_DATA_DIR": str(tmp_path / "of the image")}
    facts = told(**environ)
    assert [worker["device"] for worker in facts["plan"]["workers"]] == ["cpu"]
    assert facts["free_disk"]["folder"] == str(tmp_path / "of the image")
    assert facts["model_source"]["models_dir"] == str(tmp_path / "of the image/mineru/models")
    facts = told("--models-dir", str(tmp_path / "weights"), "--data-dir", str(tmp_path / "other"), **environ)
    assert facts["model_source"]["models_dir"] == str(tmp_path / "weights")
    assert facts["free_disk"]["folder"] == str(tmp_path / "other")
    facts = told(DOCFLEET_WORKER="2", **environ)
    assert any("DOCFLEET_WORKERS" in warning for warning in facts["warnings"]), "as the server warns of a slip"
    assert {path.name for path in tmp_path.iterdir()} == {"fleet.toml"}, "nothing is made"


def test_vlm_servers_widen_the_plan_as_they_do_in_the_server(tmp_path: Path) -> None:
    asked = {"devices": "cpu", "vlm_endpoints": "http://127.0.0.1:1,http://127.0.0.1:2", "data_dir": str(tmp_path)}
    settings = resolve(asked, {}).settings
    folder, machine = DataFolder(tmp_path), detect(CLEAN)
    source = resolve_model_source({"MINERU_MODEL_SOURCE": "local"}, home=tmp_path)
    # One was drained while an earlier run worked.
    changes = {"version": 1, "servers": {"http://127.0.0.1:2": {"in_pool": False, "key": None}}}
    for drained in (False, True):
        if drained:
            folder.vlm_changes.write_text(json.dumps(changes), encoding="utf-8")
        pool = take_pool(settings, folder)
        assert pool is not None
        fleet = assemble_fleet(settings, folder, source=source, machine=machine, pool=pool)
        pool.gate.listening.close()
        ahead = foresee(settings, machine, folder, {})
        assert ahead.decision.planned.to_json() == fleet.facts["devices"]["plan"]
        assert ahead.decision.advice == fleet.facts["recommendations"]
        assert ahead.endpoints == tuple(member.url for member in pool.members)
        assert len(ahead.endpoints) == (1 if drained else 2)


def test_a_look_ahead_listens_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = tmp_path / "bin/mineru-openai-server"
    command.parent.mkdir()
    command.write_text("#!/bin/sh\n", encoding="utf-8")
    command.chmod(0o755)
    settings = resolve(
        {
            "vlm_servers": "1",
            "devices": "cpu",
            "vlm_server_engine": "llama-cpp",
            "vlm_server_command": str(command),
            "vlm_endpoints": "http://127.0.0.1:1",
        },
        {},
    ).settings

    def refuse(*_: object) -> None:
        raise AssertionError("a port is opened")

    monkeypatch.setattr(socket.socket, "bind", refuse)
    ahead = foresee(settings, detect(CLEAN), DataFolder(tmp_path / "data"), {})
    assert ahead.launch is not None
    assert [order.engine for order in ahead.launch.orders.servers] == ["llama-cpp"]
    assert ahead.endpoints == ("http://127.0.0.1:1",)
    assert any("VLM servers (llama-cpp)" in limit for limit in ahead.decision.planned.limits)


@pytest.mark.parametrize("word", ["huggingface", "modelscope"])
def test_a_hub_that_was_named_is_asked_for_the_report_and_not_for_the_start(tmp_path: Path, word: str) -> None:
    environ = {"MINERU_MODEL_SOURCE": word, "MINERU_HOME": str(tmp_path / "nobody")}
    with house.hub(house.answers(200)) as there:
        endpoints = {Source(word): there.url}
        source = resolve_model_source(environ, home=tmp_path, endpoints=endpoints)
        assert (source.probes, there.requests) == ((), [])
        (probe,) = probe_chosen(source, environ, timeout=30, endpoints=endpoints)
        assert (probe.source, probe.reachable, len(there.requests)) == (Source(word), True, 1)
    (probe,) = probe_chosen(source, environ, timeout=30, endpoints=endpoints)
    assert not probe.reachable
    assert "no connection" in probe.detail
    assert source.hubs == (Source(word),), "the user's choice stays the only one"


def test_the_report_says_whether_the_named_hub_can_be_reached(tmp_path: Path) -> None:
    environ = {"MINERU_MODEL_SOURCE": "huggingface", "DOCFLEET_DATA_DIR": str(tmp_path)}
    with house.hub(house.answers(200)) as there:
        _, output, _ = run("device_utils.py", HF_ENDPOINT=there.url, **environ)
        assert f"huggingface {there.url} reachable" in output
        (probe,) = told(HF_ENDPOINT=there.url, HF_HUB_OFFLINE="1", **environ)["model_source"]["probes"]
        assert (probe["reachable"], probe["detail"]) == (False, "HF_HUB_OFFLINE is set")
    _, output, _ = run("device_utils.py", HF_ENDPOINT=there.url, **environ)
    assert f"huggingface {there.url} not reachable: no connection" in output
