"""Every command and every program in the docs is run, against a real server."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serving import ROOT, Serving, running

ADDRESS = "http://127.0.0.1:8000"
#: What is in the answer of a command, by what is in the command; the others answer with a document's text.
TOLD = {"/jobs": '"job', "-X DELETE": '"forgotten"', "/poison": '"documents"'}
README = (ROOT / "README.md").read_text()
CLIENT = (ROOT / "docs" / "client.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def client_commands() -> list[str]:
    lines = [line.strip().removeprefix("$ ") for line in CLIENT.splitlines() if line.startswith("    ")]
    return [line for line in lines if line.startswith("python client.py")]


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    with running(tmp_path_factory.mktemp("docs") / "data", "--workers", "2") as serving:
        yield serving


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder in which the docs' file names exist."""
    for name in ("docs", "scans"):
        (tmp_path / name).mkdir()
    shutil.copy(ROOT / "client.py", tmp_path)
    shutil.copytree(ROOT / "samples", tmp_path / "samples", ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    shutil.copy(ROOT / "samples" / "minutes.docx", tmp_path / "docs" / "report.docx")
    shutil.copy(ROOT / "samples" / "report.pdf", tmp_path / "paper.pdf")
    make_picture(tmp_path / "scans" / "scan-1.png")
    (tmp_path / "options.toml").write_text('["report.docx"]\nformats = ["markdown", "docx"]\n')
    return tmp_path


def make_picture(path: Path) -> None:
    from PIL import Image, ImageDraw

    picture = Image.new("L", (900, 300), 255)
    ImageDraw.Draw(picture).text((60, 100), "Seven herons stood in the shallow water.", fill=0, font_size=40)
    picture.save(path)


def run(command: str, place: Path, serving: Serving) -> subprocess.CompletedProcess[str]:
    command = command.replace(ADDRESS, serving.url)
    if "client.py" in command and "--url" not in command:
        command += f" --url {serving.url}"
    environ = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    return subprocess.run(
        ["bash", "-c", command], cwd=place, env=environ, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.parametrize(
    "command", [line for block in blocks("sh") for line in block.splitlines() if not line.startswith("make ")]
)
def test_the_commands_of_the_readme_work(serving: Serving, place: Path, command: str) -> None:
    done = run(command, place, serving)
    assert done.returncode == 0, done.stderr
    if command.startswith("curl"):
        told = next((word for part, word in TOLD.items() if part in command), "Groundwater in the Lower Valley")
        assert told in done.stdout


@pytest.mark.parametrize("target", sorted(set(re.findall(r"(?:^|`)make ([a-z-]+)", README, re.MULTILINE))))
def test_the_make_targets_of_the_readme_exist(target: str) -> None:
    done = subprocess.run(["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_programs_of_the_readme_work(serving: Serving, place: Path) -> None:
    (program,) = blocks("python")
    (place / "program.py").write_text(program.replace(ADDRESS, serving.url))
    done = run("python program.py", place, serving)
    assert "Groundwater in the Lower Valley" in done.stdout, done.stderr


def test_the_commands_of_the_clients_page_work_one_after_the_other(serving: Serving, place: Path) -> None:
    commands = client_commands()
    assert len(commands) >= 5
    for command in commands:
        # What needs models that are not here is run at the tier that is.
        done = run(command.replace("--tier basic", "--tier flash"), place, serving)
        assert done.returncode == 0, (command, done.stdout, done.stderr)
    assert (place / "results" / "paper" / "paper.md").exists()


def test_what_the_readme_says_of_commands_without_a_server_holds() -> None:
    for command in ("device_utils.py", "server.py --show-config", "client.py --help"):
        assert command.split()[0] in README
        done = subprocess.run([sys.executable, *command.split()], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode in ((0, 1) if command == "device_utils.py" else (0,)), done.stderr
        assert done.stdout


def test_the_demo_prints_what_the_readme_shows() -> None:
    done = subprocess.run([sys.executable, "samples/demo.py"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (shown,) = blocks("text")
    heads = [
        line for line in shown.splitlines() if line and not re.search(r"\d+\.\d+ s|pages/s|seconds|http|│|─", line)
    ]
    assert len(heads) > 10
    for line in heads:
        assert line in done.stdout, line
