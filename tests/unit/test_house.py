"""The house rules that can be counted."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOP_MODULES = ("server.py", "client.py", "device_utils.py", "_config_endpoint.py")
#: The client is one file by contract, so that it runs wherever it is copied to.
ONE_FILE_BY_CONTRACT = {"client.py": 1180}


def modules() -> Iterator[Path]:
    yield from sorted((ROOT / "docfleet").rglob("*.py"))
    yield from (ROOT / name for name in TOP_MODULES)


@pytest.mark.parametrize("path", list(modules()), ids=lambda path: str(path.relative_to(ROOT)))
def test_modules_and_functions_stay_short(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= ONE_FILE_BY_CONTRACT.get(path.name, 350)
    functions = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    assert [f.name for f in functions if (f.end_lineno or f.lineno) - f.lineno + 1 > 70] == []


def test_every_sub_package_has_one_meaning_and_at_least_three_modules() -> None:
    for package in (path for path in (ROOT / "docfleet").iterdir() if (path / "__init__.py").exists()):
        assert (package / "__init__.py").read_text().startswith('"""'), package.name
        assert len(list(package.rglob("*.py"))) >= 4, package.name


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.partition(".")[0])
    return names


def test_the_package_never_imports_a_top_level_module() -> None:
    tops = {Path(name).stem for name in TOP_MODULES}
    for path in (ROOT / "docfleet").rglob("*.py"):
        assert not imported(path) & tops, path


def test_the_client_runs_wherever_it_is_copied_to() -> None:
    assert imported(ROOT / "client.py") - set(sys.stdlib_module_names) == {"aiohttp", "rich"}


def test_lock_files_pin_every_package_by_hash_and_name_no_index() -> None:
    for path in (ROOT / "requirements").glob("*.txt"):
        text = path.read_text()
        assert "--index-url" not in text
        assert "://" not in text
        if path.name != "excludes.txt":
            pins = [line for line in text.splitlines() if "==" in line and not line.lstrip().startswith("#")]
            assert pins
            assert text.count("--hash=sha256:") >= len(pins)


def test_the_version_is_the_same_wherever_it_is_written() -> None:
    from docfleet import __version__

    assert f'version = "{__version__}"' in (ROOT / "pyproject.toml").read_text()
    assert f"## {__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_importing_the_main_process_loads_neither_torch_nor_mineru() -> None:
    heavy = ("torch", "mineru", "docvortex", "rapidocr", "cv2")
    code = f"import sys, server; print([name for name in {heavy} if name in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
