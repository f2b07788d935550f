"""`GET /api/gpu-status`, and what of it stands in `/status`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import requests

from docfleet.devices import Accelerator, Cpu, Kind, Machine, Memory, Probe, plan
from docfleet.devices.advice import recommendations
from docfleet.devices.gauges import Gauges
from docfleet.devices.records import GIB, Reading
from docfleet.records import WorkerState
from tests.integration.web_house import PDF, open_house


class Told:
    """A probe that says what it is told."""

    failure = "npu-smi ended with status 1; asked again in 10 s"

    def __init__(self, *readings: Reading) -> None:
        self._readings = list(readings)

    def take(self) -> list[Reading]:
        return self._readings

    def stop(self) -> None:
        pass


CARD = Accelerator(kind=Kind.CUDA, index=0, name="NVIDIA L4", pin="0", uuid="GPU-0", memory_total=24 * GIB)
MACHINE = Machine(
    cpu=Cpu(logical=8, affinity=8, name="EPYC"),
    memory=Memory(total=64 * GIB, available=60 * GIB),
    accelerators=(CARD,),
    probes=(Probe(kind=Kind.CUDA, found=1), Probe(kind=Kind.MPS, found=0, reason="this is not macOS")),
    versions={"nvidia-driver": "580.105.08"},
)


def facts(machine: Machine, **wishes: Any) -> dict[str, Any]:
    planned = plan(machine, **wishes)
    found = {"machine": machine.to_json(), "plan": planned.to_json()}
    return {"devices": found, "recommendations": recommendations(machine, planned, plan(machine))}


def test_the_devices_their_load_and_what_to_make_of_them_are_told(tmp_path: Path) -> None:
    gauges = Gauges(
        [Told(Reading(device="cuda:0", memory_total=24 * GIB, memory_free=6 * GIB, utilisation=83, power=61.5))],
        interval=5,
    )
    gauges.look()
    gauges.look()
    planned = plan(MACHINE, workers_per_device=2)
    changes = {"facts": facts(MACHINE, workers_per_device=2), "gauges": gauges, "plan": planned.slots()}
    with open_house(tmp_path, **changes) as house:
        answer = house.get("/api/gpu-status").json()
        status = house.get("/status").json()
        past = house.get("/api/gpu-status?history=60").json()["history"]
        assert house.get("/api/gpu-status?history=99999").status_code == 400
    assert answer["success"] is True
    card, cores = answer["gpu_status"]["devices"]
    assert (card["device"], card["name"], card["workers"]) == ("cuda:0", "NVIDIA L4", [0, 1])
    assert card["now"]["memory_used"] == 18 * GIB
    assert (card["now"]["utilisation"], card["now"]["power"], card["now"]["temperature"]) == (83, 61.5, None)
    assert (cores["device"], cores["name"], cores["workers"], cores["now"]) == ("cpu", "EPYC", [], None)
    assert answer["gpu_status"]["accelerated"] is True
    assert answer["gpu_status"]["versions"]["nvidia-driver"] == "580.105.08"
    assert status["devices"]["machine"]["versions"]["nvidia-driver"] == "580.105.08"
    assert answer["gpu_status"]["not_found"] == {"mps": "this is not macOS"}
    assert answer["gpu_status"]["failures"] == [Told.failure]
    advice = answer["recommendations"]
    assert (advice["max_concurrent"], advice["workers"], advice["performance_warning"]) == (1, 2, False)
    assert advice["seconds_per_page"]["basic"]["measured"] is False
    assert "history" not in answer or answer["history"] is None
    assert [one["utilisation"] for one in past] == [83, 83]
    assert status["gauges"] == answer["gpu_status"]["devices"]
    assert status["recommendations"] == advice


#: Of Intel: nothing reads it while the server runs.
ARC = Accelerator(kind=Kind.XPU, index=0, name="Arc", uuid="abc", memory_total=12 * GIB, memory_free=10 * GIB)
HOPPER = Accelerator(
    kind=Kind.CUDA,
    index=0,
    name="NVIDIA H100",
    pin="0",
    uuid="GPU-0",
    memory_total=80 * GIB,
    memory_free=79 * GIB,
    compute_capability="9.0",
    processes=1,
)


def test_both_addresses_tell_all_that_is_known_of_each_device_and_the_disk(tmp_path: Path) -> None:
    machine = Machine(cpu=MACHINE.cpu, memory=MACHINE.memory, accelerators=(HOPPER, ARC), versions={"mineru": "4.0.12"})
    reading = Reading(device="cuda:0", memory_total=80 * GIB, memory_free=6 * GIB, holders=((17, GIB), (18, None)))
    gauges = Gauges([Told(reading)], interval=5)
    source = {"name": "local", "reason": "it is set", "models_dir": "weights", "probes": []}
    told = facts(machine, devices="cuda:0") | {"model_source": source}
    with open_house(tmp_path, facts=told, gauges=gauges, disk_reserve=7) as house:
        before = house.get("/api/gpu-status").json()["gpu_status"]["devices"][0]
        gauges.look()
        answer = house.get("/api/gpu-status?history=60").json()
        status = house.get("/status").json()
        assert house.get(status["gauges_history"]).json()["history"] == answer["history"]
    assert status["gauges_history"] == "/api/gpu-status?history=3600"
    assert (before["now"], before["memory_free"], before["processes"]) == (None, 79 * GIB, 1), "as at the start"
    card, arc, cores = answer["gpu_status"]["devices"]
    assert (card["uuid"], card["compute_capability"], card["processes"]) == ("GPU-0", "9.0", 2)
    assert (card["memory_total"], card["memory_free"], card["unused"]) == (80 * GIB, 6 * GIB, "")
    assert (arc["uuid"], arc["compute_capability"], arc["processes"], arc["now"]) == ("abc", "", None, None)
    assert (arc["memory_total"], arc["memory_free"]) == (12 * GIB, 10 * GIB)
    assert arc["unused"] == "not named in devices=cuda:0"
    assert (cores["memory_total"], cores["memory_free"]) == (64 * GIB, 60 * GIB)
    assert [one["processes"] for one in answer["history"]] == [2]
    for name in ("versions", "model_source", "free_disk"):
        assert answer["gpu_status"][name]
    assert answer["gpu_status"]["versions"] == status["devices"]["machine"]["versions"] == {"mineru": "4.0.12"}
    assert answer["gpu_status"]["model_source"] == status["model_source"] == source
    assert status["gauges"] == answer["gpu_status"]["devices"]
    disk = status["free_disk"]
    assert (disk["folder"], disk["reserve"]) == (str(tmp_path), 7)
    assert disk["bytes"] > 0


def test_the_description_of_the_api_names_all_that_is_told_of_a_device(tmp_path: Path) -> None:
    with open_house(tmp_path, facts=facts(MACHINE)) as house:
        schemas = house.get("/openapi.json").json()["components"]["schemas"]
        answer = house.get("/api/gpu-status").json()
        status = house.get("/status").json()
    assert set(schemas["GpuStatus"]["properties"]) == set(answer["gpu_status"])
    assert set(schemas["DeviceView"]["properties"]) == set(answer["gpu_status"]["devices"][0])
    assert set(schemas["DiskView"]["properties"]) == set(status["free_disk"])
    assert set(schemas["StatusView"]["properties"]) == set(status)


def test_a_machine_without_an_accelerator_is_told_as_one_with_the_reason(tmp_path: Path) -> None:
    probe = Probe(kind=Kind.CUDA, found=0, reason="no NVIDIA driver is installed")
    plain = Machine(cpu=MACHINE.cpu, memory=MACHINE.memory, probes=(probe,))
    with open_house(tmp_path, facts=facts(plain), plan=plan(plain).slots()) as house:
        answer = house.get("/api/gpu-status").json()
    assert answer["gpu_status"]["accelerated"] is False
    assert "nvidia-driver" not in answer["gpu_status"]["versions"]
    advice = answer["recommendations"]
    assert (advice["max_concurrent"], advice["performance_warning"], advice["fitness"]) == (8, True, "degraded")
    assert "no NVIDIA driver is installed" in advice["message"]
    assert advice["seconds_per_page"]["flash"] == {"one_worker": 0.15, "all_workers": 0.019, "measured": True}


def test_how_much_is_done_at_once_can_be_changed_while_running(tmp_path: Path) -> None:
    with open_house(tmp_path, facts=facts(MACHINE)) as house:
        assert house.get("/api/max-concurrent").json() == {"max_concurrent": None, "workers": 1}
        address = f"{house.url}/api/max-concurrent"
        assert house.predict_files({"b.pdf": PDF}).status_code == 200, "so that there is a speed"
        assert requests.put(address, json={"max_concurrent": 0}, timeout=30).json()["max_concurrent"] == 0
        sent = requests.post(f"{house.url}/jobs?filename=a.pdf", data=PDF, timeout=30)
        assert sent.status_code == 202
        job = sent.json()["job_id"]
        assert house.get("/status").json()["recommendations"]["in_force"] == 0
        assert house.get("/api/gpu-status").json()["recommendations"]["in_force"] == 0
        waiting = house.get(f"/jobs/{job}").json()
        assert (waiting["state"], waiting["eta"]) == ("queued", None), "it is accepted, and waits"
        assert requests.put(address, json={"max_concurrent": None}, timeout=30).json()["max_concurrent"] is None
        house.get(f"/jobs/{job}/result?wait=30")
        deadline = time.monotonic() + 30
        while house.get(f"/jobs/{job}").json()["state"] != "completed":
            assert time.monotonic() < deadline
            time.sleep(0.02)


@pytest.mark.parametrize(
    "body", [{"max_concurrent": -1}, {"max_concurrent": "3"}, {}, {"max_concurrent": 1, "x": 2}, 7]
)
def test_a_number_that_means_nothing_changes_nothing(tmp_path: Path, body: Any) -> None:
    with open_house(tmp_path, facts=facts(MACHINE)) as house:
        refused = requests.put(f"{house.url}/api/max-concurrent", json=body, timeout=30)
        assert refused.status_code in (400, 422)
        assert refused.json()["error"]["code"] in ("invalid_request", "invalid_option")
        assert 'Send {"max_concurrent": 2}' in refused.json()["error"]["message"]
        assert house.get("/api/max-concurrent").json()["max_concurrent"] is None


def test_the_cap_is_understood_whatever_the_body_calls_itself(tmp_path: Path) -> None:
    with open_house(tmp_path, facts=facts(MACHINE)) as house:
        for number, headers in ((3, {"Content-Type": "application/x-www-form-urlencoded"}), (4, {})):
            body = f'{{"max_concurrent": {number}}}'
            answer = requests.put(f"{house.url}/api/max-concurrent", data=body, headers=headers, timeout=30)
            assert answer.json() == {"max_concurrent": number, "workers": 1}


def test_workers_that_rest_are_shown_with_the_reason_and_documents_are_taken_all_the_same(tmp_path: Path) -> None:
    with open_house(tmp_path, facts=facts(MACHINE)) as house:
        house.worker.claiming.clear()
        house.worker.announce(WorkerState.RESTING, "less than 512 MB of the memory of cuda:0 are free")
        ready = house.get("/readyz")
        assert ready.status_code == 503
        assert ready.json()["workers"]["0"] == "resting: less than 512 MB of the memory of cuda:0 are free"
        assert house.get("/status").json()["workers"][0]["state"] == "resting"
        assert requests.post(f"{house.url}/jobs?filename=a.pdf", data=PDF, timeout=30).status_code == 202
