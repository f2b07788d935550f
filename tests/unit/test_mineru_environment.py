from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from docfleet.engine.mineru import tuning


def test_importing_the_package_imports_neither_mineru_nor_docvortex() -> None:
    code = (
        "import sys, docfleet.engine.mineru, docfleet.engine.mineru.documents\n"
        "heavy = {'mineru', 'docvortex', 'torch', 'onnxruntime', 'cv2', 'pypdfium2', 'PIL'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_variable_that_is_set_already_wins_and_is_left_out() -> None:
    inherited = {"MINERU_PROCESSING_WINDOW_SIZE": "8", "MINERU_MALLOC_TRIM": "0"}
    assert not set(inherited) & set(tuning("cpu", inherited))


def test_table_models_stay_off_the_card_in_a_cpu_worker() -> None:
    assert tuning("cpu", {})["MINERU_TABLE_DEVICE"] == "cpu"
    assert "MINERU_TABLE_DEVICE" not in tuning("cuda:0", {})


def test_cpu_workers_hold_fewer_pages_at_once() -> None:
    name = "MINERU_PROCESSING_WINDOW_SIZE"
    reading, asking, card = (tuning("cpu", {}), tuning("cpu", {}, asks=True), tuning("cuda:0", {}))
    assert int(reading[name]) < int(asking[name]) < int(card[name])


def test_mineru_really_reads_a_workers_variables_at_its_import(tmp_path: Path) -> None:
    code = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from tests.mineru_support import worker_environment\n"
        "home = Path(sys.argv[1])\n"
        "os.environ.update(worker_environment(home))\n"
        "from mineru.config import config, get_config_file_path\n"
        "from mineru.backend.analysis.pdf.images import get_load_images_threads\n"
        "from mineru.backend.analysis.pdf.window import _configured_window_size\n"
        "assert config.model.source == 'local' and config.log.level == 'error'\n"
        "assert config.model.base_dir == str(home / 'models')\n"
        "assert get_config_file_path().startswith(str(home))\n"
        "assert get_load_images_threads() == 2 and _configured_window_size() == 4\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.iterdir())
