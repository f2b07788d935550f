"""Detection with real processes: affinity, drivers that answer, hang and crash, and the command line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from docfleet.devices import Fitness, Kind, detect, plan
from docfleet.devices.child import Child
from tests.weights_folder import fill

ROOT = Path(__file__).resolve().parents[2]
CLEAN = {name: value for name, value in os.environ.items() if not name.startswith(("MINERU_", "OMP_", "CUDA_"))}


def command(*options: str, before: str = "", **environ: str) -> tuple[int, str, str]:
    """Run `device_utils.py` in a fresh process; `before` is Python to run first."""
    program = f"{before}\nimport device_utils, sys\nsys.exit(device_utils.main({list(options)!r}))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=CLEAN | environ, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout, done.stderr


def script(folder: Path, name: str, text: str) -> str:
    """Write an executable shell script; return a PATH that finds it first."""
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity")
def test_a_process_bound_to_one_core_plans_for_one_core() -> None:
    core = min(os.sched_getaffinity(0))
    code, output, _ = command("--json", "--devices", "cpu", before=f"import os; os.sched_setaffinity(0, {{{core}}})")
    found = json.loads(output)
    assert code == 1
    assert found["machine"]["cpu"]["cores"] == 1
    assert len(found["plan"]["workers"]) == 1
    assert found["plan"]["workers"][0]["threads"] == 1


def test_a_quota_of_the_container_narrows_the_plan(tmp_path: Path) -> None:
    mount = "29 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw"
    for name, text in {
        "proc/self/mountinfo": mount,
        "proc/self/cgroup": "0::/",
        "sys/fs/cgroup/cpu.max": "50000 100000",
        "sys/fs/cgroup/memory.max": str(1 << 30),
        "sys/fs/cgroup/memory.current": "0",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    here = detect(CLEAN, root=tmp_path)
    assert here.cpu.cores == 0.5
    assert here.memory.limit == here.memory.total == 1 << 30
    assert len(plan(here, devices="cpu").workers) == 1


def test_everything_that_is_not_here_has_a_reason() -> None:
    here = detect(CLEAN)
    assert [probe.kind for probe in here.probes] == [Kind.CUDA, Kind.NPU, Kind.MPS, Kind.XPU]
    for probe in here.probes:
        assert probe.found or probe.reason


def test_a_missing_binding_and_a_missing_driver_are_reasons_and_not_errors(tmp_path: Path) -> None:
    (tmp_path / "pynvml.py").write_text("raise ImportError('hidden')", encoding="utf-8")
    _, output, _ = command("--json", PYTHONPATH=str(tmp_path))
    reasons = {probe["kind"]: probe["reason"] for probe in json.loads(output)["machine"]["probes"]}
    assert reasons["cuda"] == "nvidia-ml-py is not installed"
    _, output, _ = command("--json", LD_LIBRARY_PATH=str(tmp_path), PATH=str(tmp_path))
    reasons = {probe["kind"]: probe["reason"] for probe in json.loads(output)["machine"]["probes"]}
    assert "npu-smi is not here" in reasons["npu"]


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("import time; time.sleep(600)", "gave no answer within 0.5 s"),
        ("import os; os.abort()", "ended with signal 6"),
        ("import os; print('noise', flush=True); os._exit(0)", "cannot be read"),
        ("raise SystemExit(3)", "ended with status 3"),
    ],
    ids=["hangs", "crashes", "talks nonsense", "gives up"],
)
def test_a_driver_that_misbehaves_costs_its_card_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, told: str
) -> None:
    (tmp_path / "pynvml.py").write_text(body, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    here = detect(CLEAN, timeout=0.5 if "sleep" in body else 30)
    (probe,) = [probe for probe in here.probes if probe.kind is Kind.CUDA]
    assert told in probe.reason
    assert plan(here, devices="cpu").workers


def test_npu_smi_is_asked_and_one_that_hangs_is_left_with_all_its_children(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = "\\n".join(
        [
            "| 0     910B3               | OK            | 90.1        40                0    / 0             |",
            "| 0                         | 0000:C1:00.0  | 0           0    / 0          3100 / 65536         |",
        ]
    )
    monkeypatch.setenv("PATH", script(tmp_path, "npu-smi", f"[ \"$1\" = info ] && printf '{table}\\n'"))
    (chip,) = detect(CLEAN, timeout=30).accelerators
    assert (chip.device, chip.name, chip.memory_total) == ("npu:0", "Ascend 910B3", 64 << 30)
    assert "torch_npu is not installed" in chip.lacks

    script(tmp_path, "npu-smi", f"sleep 600 & echo $! > {tmp_path}/child; wait")
    here = detect(CLEAN, timeout=1)
    assert here.accelerators == ()
    assert any("npu-smi gave no answer within 1 s" in probe.reason for probe in here.probes)
    if (tmp_path / "child").exists():
        grandchild = int((tmp_path / "child").read_text())
        assert not _runs(grandchild)


@pytest.mark.parametrize(
    ("mask", "pins", "told"),
    [
        (None, ["0", "1"], ""),
        ("3,1", ["3", "1"], "ZE_AFFINITY_MASK=3,1 is set"),
        ("0", ["", ""], "name each of them"),
    ],
)
def test_intels_devices_are_what_pytorch_finds_and_are_pinned_by_the_users_own_mask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mask: str | None, pins: list[str], told: str
) -> None:
    package = tmp_path / "torch-2.9.0+xpu.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 2.9.0+xpu\n", encoding="utf-8")
    (tmp_path / "torch.py").write_text(TORCH_FOR_INTEL, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    environ = CLEAN | ({"ZE_AFFINITY_MASK": mask} if mask else {})
    here = detect(environ, timeout=30, root=intel_bus(tmp_path / "root"))
    found = [device for device in here.accelerators if device.kind is Kind.XPU]
    assert [(device.device, device.pin, device.memory_free) for device in found] == [
        ("xpu:0", pins[0], 10 << 30),
        ("xpu:1", pins[1], 10 << 30),
    ]
    assert told in here.probes[-1].reason + found[0].blocked
    assert bool(found[0].blocked) == (not pins[0])
    masks = [worker.environment.get("ZE_AFFINITY_MASK", "") for worker in plan(here).workers]
    assert masks == pins if pins[0] else not any(masks)


def test_pytorch_is_asked_only_where_an_intel_device_is_and_a_pytorch_made_for_it(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("import time; time.sleep(600)", encoding="utf-8")
    assert "is on this machine's bus" in detect(CLEAN, root=tmp_path / "nothing").probes[-1].reason
    reason = detect(CLEAN, root=intel_bus(tmp_path / "root")).probes[-1].reason
    assert "an Intel graphics device is here, but" in reason


TORCH_FOR_INTEL = """
class xpu:
    is_available = staticmethod(lambda: True)
    device_count = staticmethod(lambda: 2)
    mem_get_info = staticmethod(lambda index: (10 << 30, 12 << 30))

    @staticmethod
    def get_device_properties(index):
        class Properties:
            name, total_memory = "Intel(R) Arc(TM) B580 Graphics", 12 << 30
        return Properties
"""


def intel_bus(root: Path) -> Path:
    for name, vendor, kind in (("0000:00:00.0", "0x8086", "0x060000"), ("0000:03:00.0", "0x8086", "0x030000")):
        folder = root / "sys/bus/pci/devices" / name
        folder.mkdir(parents=True)
        (folder / "vendor").write_text(f"{vendor}\n", encoding="ascii")
        (folder / "class").write_text(f"{kind}\n", encoding="ascii")
    return root


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False


def test_a_child_that_cannot_be_started_or_fails_says_why(tmp_path: Path) -> None:
    assert Child(["no-such-program-here"], 5).reply().failure == "no-such-program-here is not installed"
    plain = tmp_path / "plain"
    plain.write_text("text", encoding="utf-8")
    assert "cannot be started: Permission denied" in Child([str(plain)], 5).reply().failure
    failed = Child(["sh", "-c", "echo first; echo the cause >&2; exit 4"], 5).reply()
    assert failed.failure == "sh ended with status 4: the cause"
    assert Child(["cat"], 5, message="secret").reply().output == "secret"


FAKE_NVML = r"""
#include <string.h>
typedef struct { unsigned long long total, free, used; } memory_t;
typedef struct { char legacy[16]; unsigned domain, bus, device, id, sub; char text[32]; } pci_t;
static int cards[2] = {0, 1}, slice = 9;
int nvmlInitWithFlags(unsigned flags) { return 0; }
int nvmlShutdown(void) { return 0; }
const char *nvmlErrorString(int code) { return "fake error"; }
int nvmlSystemGetDriverVersion(char *out, unsigned size) { strcpy(out, "580.105.08"); return 0; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 3; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **out) {
  if (index > 1) return 15; /* GPU is lost */
  *out = &cards[index]; return 0;
}
int nvmlDeviceGetUUID(int *card, char *out, unsigned size) {
  strcpy(out, *card == 9 ? "MIG-cafe" : *card ? "GPU-1111" : "GPU-0000"); return 0;
}
int nvmlDeviceGetName(int *card, char *out, unsigned size) { strcpy(out, "NVIDIA Test Card"); return 0; }
int nvmlDeviceGetMemoryInfo(int *card, memory_t *out) {
  out->total = (*card == 9 ? 10ULL : 80ULL) << 30; out->used = 1ULL << 30; out->free = out->total - out->used; return 0;
}
int nvmlDeviceGetPciInfo_v3(int *card, pci_t *out) { strcpy(out->text, "00000000:C1:00.0"); return 0; }
int nvmlDeviceGetCudaComputeCapability(int *card, int *major, int *minor) { *major = 9; *minor = 0; return 0; }
int nvmlDeviceGetMigMode(int *card, unsigned *now, unsigned *later) { *now = *later = *card == 1; return 0; }
int nvmlDeviceGetMaxMigDeviceCount(int *card, unsigned *count) { *count = 7; return 0; }
int nvmlDeviceGetMigDeviceHandleByIndex(int *card, unsigned place, void **out) {
  if (place != 3) return 6; /* not found */
  *out = &slice; return 0;
}
"""


@pytest.mark.skipif(sys.platform != "linux" or shutil.which("cc") is None, reason="needs Linux and a C compiler")
def test_nvml_is_read_through_its_real_binding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "nvml.c"
    source.write_text(FAKE_NVML, encoding="utf-8")
    library = tmp_path / "libnvidia-ml.so.1"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    here = detect(CLEAN, timeout=30)
    whole, piece = here.accelerators
    assert (whole.device, whole.pin, whole.uuid, whole.name) == ("cuda:0", "GPU-0000", "GPU-0000", "NVIDIA Test Card")
    assert (whole.memory_total, whole.memory_free) == (80 << 30, 79 << 30)
    assert (whole.bus, whole.compute_capability, whole.processes) == ("00000000:C1:00.0", "9.0", None)
    assert here.versions["nvidia-driver"] == "580.105.08"
    assert (piece.device, piece.pin, piece.memory_total) == ("cuda:1", "MIG-cafe", 10 << 30)
    assert "card 2 does not answer" in here.probes[0].reason
    environment = plan(here, devices="cuda:1").workers[0].environment
    assert environment["CUDA_VISIBLE_DEVICES"] == "MIG-cafe"
    assert environment["MINERU_VIRTUAL_VRAM_SIZE"] == "10"
    hidden = detect(CLEAN | {"CUDA_VISIBLE_DEVICES": "MIG-cafe"}, timeout=30)
    assert [one.pin for one in hidden.accelerators] == ["MIG-cafe"]


def test_a_number_among_unequal_cards_is_told_how_it_was_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = tmp_path / "cards.json"
    cards = [{"name": name, "total": 16000, "free": 15000} for name in ("Old", "New")]
    state.write_text(json.dumps({"cards": cards}), encoding="utf-8")
    monkeypatch.setenv("FAKE_NVML", str(state))
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "tests" / "fake_nvml"))
    here = detect(CLEAN | {"CUDA_VISIBLE_DEVICES": "0"}, timeout=30)
    assert [one.name for one in here.accelerators] == ["Old"]
    assert any("CUDA_VISIBLE_DEVICES=0 is read in" in warning for warning in plan(here, devices="cuda:0").warnings)
    alike = CLEAN | {"CUDA_VISIBLE_DEVICES": "0", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    assert detect(alike, timeout=30).remarks == detect(CLEAN, timeout=30).remarks == ()


def test_looking_imports_nothing_heavy() -> None:
    program = (
        "import sys, device_utils, _config_endpoint; m = device_utils.detect(); device_utils.plan(m);"
        "print([n for n in ('torch', 'mineru', 'onnxruntime', 'numpy', 'requests', 'pynvml') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_command_says_what_is_here_what_is_used_and_why_not_more() -> None:
    code, output, _ = command("--devices", "cpu")
    planned = plan(detect(CLEAN), devices="cpu")
    assert code == {Fitness.FIT: 0, Fitness.DEGRADED: 1, Fitness.UNFIT: 2}[planned.fitness]
    assert f"{len(planned.workers)} worker(s); recommended: {len(planned.workers)}" in output
    assert "Models" in output
    for part in ("Found", "Will be used", "Why not more", "Warnings", "Versions", "Verdict: degraded", "mineru 4."):
        assert part in output


def test_the_command_tells_of_each_card_and_of_its_driver_what_nvml_does(tmp_path: Path) -> None:
    cards = tmp_path / "cards.json"
    cards.write_text(json.dumps({"cards": [{"total": 8192, "free": 8000, "holders": [[7, 100], [8, 50]]}]}))
    environ = {"PYTHONPATH": str(ROOT / "tests" / "fake_nvml"), "FAKE_NVML": str(cards)}
    _, output, _ = command("--devices", "cpu", **environ)
    assert "compute capability 9.0, 2 process(es) on it" in output
    assert "nvidia-driver 570.1" in output
    _, output, _ = command("--json", "--devices", "cpu", **environ)
    assert json.loads(output)["machine"]["versions"]["nvidia-driver"] == "570.1"


def test_the_json_of_the_command_holds_all_facts() -> None:
    _, output, _ = command("--json", "--devices", "cpu", "--data-dir", "no/such/folder/yet")
    told: dict[str, Any] = json.loads(output)
    assert told["free_disk"]["bytes"] > 0
    assert told["plan"]["recommended_concurrency"] == len(told["plan"]["workers"])
    _, output, _ = command("--json", "--devices", "cpu", "--workers", "1")
    assert len(json.loads(output)["plan"]["workers"]) == 1
    assert json.loads(output)["recommendations"]["max_concurrent"] == told["plan"]["recommended_concurrency"]
    assert told["plan"]["performance_warning"]
    assert told["recommendations"]["max_concurrent"] == told["plan"]["recommended_concurrency"]
    assert set(told["recommendations"]["seconds_per_page"]) == {"auto", "flash", "basic", "standard", "advanced"}
    assert told["model_source"]["name"] in ("huggingface", "modelscope", "local", "embedded")
    assert told["machine"]["versions"]["mineru"].startswith("4.")


def test_a_disk_on_which_no_document_would_be_taken_is_unfit() -> None:
    code, output, _ = command("--devices", "cpu", "--min-free-disk-mb", "999999999")
    assert code == 2
    assert "Verdict: unfit" in output
    assert "every document is refused (507). Make room, or set min_free_disk_mb." in output


def test_what_a_folder_of_weights_lacks_is_judged_by_what_the_planned_workers_load(tmp_path: Path) -> None:
    local = {"MINERU_MODEL_SOURCE": "local", "MINERU_MODEL_BASE_DIR": str(fill(tmp_path))}
    _, output, _ = command("--devices", "cpu", **local)
    assert f"weights   in {tmp_path}" in output
    local["MINERU_MODEL_SMALL_BACKEND"] = "torch"
    lack = f"{tmp_path} lacks MinerU-4_models_torch, which workers on accelerators with PyTorch load"
    _, output, _ = command("--devices", "cpu", **local)
    assert f"weights   {lack}" in output
    _, output, _ = command("--devices", "cpu", "--json", **local)
    assert json.loads(output)["weights"] == {"backends": ["torch"], "missing": lack}


@pytest.mark.parametrize("options", [("--devices", "cuda:77"), ("--require-accelerator", "--devices", "cpu")])
def test_a_wish_that_cannot_be_met_ends_with_status_2_and_the_remedy(options: tuple[str, ...]) -> None:
    code, output, errors = command(*options)
    assert (code, output) == (2, "")
    assert "auto" in errors or "start without require_accelerator" in errors
    code, output, _ = command("--json", *options)
    assert code == 2
    assert json.loads(output)["error"]["code"] == "configuration_error"
