"""Which VLM servers are planned, on machines that are not here: devices, engine, memory, environment, ports."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from docfleet.devices import Machine, plan
from docfleet.errors import ConfigurationError
from docfleet.launch import leftovers
from docfleet.launch.leftovers import only_one
from docfleet.launch.orders import LaunchOrders
from docfleet.launch.planning import Servers, Wish, free_ports, leave_room, plan_servers
from docfleet.settings import Settings
from docfleet.vlm.planning import OwnServers, plan_pool
from tests.unit.test_device_plan import ATLAS_800, DGX_H100_MIG, EIGHT_A100, LAPTOP, M3_MAX, TWO_4090, UNEQUAL

EVERYTHING = frozenset({"vllm", "lmdeploy", "llama-cpp", "mlx"})


def planned(here: Machine, number: Any = "auto", *, installed: Any = EVERYTHING, **wishes: Any) -> Servers:
    devices = wishes.pop("devices", "auto")
    inherited = wishes.pop("inherited", {})
    return plan_servers(
        here,
        devices,
        Wish(number=number, command=Path("/opt/vlm/bin/mineru-openai-server"), **wishes),
        here=lambda: installed,
        ports=lambda number: range(30000, 30000 + number),
        inherited=inherited,
    )


def refused(here: Machine, number: Any = "auto", **wishes: Any) -> str:
    with pytest.raises(ConfigurationError) as caught:
        planned(here, number, **wishes)
    return caught.value.message


def after(command: Sequence[str], option: str) -> str:
    return command[list(command).index(option) + 1]


#: machine, engine, devices, variable that pins, its values, further options of the first.
TABLE = {
    "eight A100": (EIGHT_A100, "vllm", "CUDA_VISIBLE_DEVICES", [str(n) for n in range(8)], "0.5"),
    "MIG slices": (DGX_H100_MIG, "vllm", "CUDA_VISIBLE_DEVICES", ["MIG-0", "MIG-1", "MIG-2"], "0.5"),
    "unequal cards": (UNEQUAL, "vllm", "CUDA_VISIBLE_DEVICES", ["0", "1"], "0.5"),
    "Atlas 800": (ATLAS_800, "vllm", "ASCEND_RT_VISIBLE_DEVICES", [str(n) for n in range(8)], "0.5"),
}


@pytest.mark.parametrize(("here", "engine", "variable", "pins", "share"), TABLE.values(), ids=TABLE.keys())
def test_auto_puts_one_server_on_each_accelerator_and_pins_it_there(
    here: Machine, engine: str, variable: str, pins: list[str], share: str
) -> None:
    servers = planned(here)
    assert [order.environment[variable] for order in servers.orders] == pins
    assert [order.device for order in servers.orders] == [device.device for device in here.accelerators]
    assert [order.url for order in servers.orders] == [f"http://127.0.0.1:{30000 + n}" for n in range(len(pins))]
    for order in servers.orders:
        assert order.command[:3] == ("/opt/vlm/bin/mineru-openai-server", "--engine", engine)
        assert after(order.command, "--port") == str(order.port)
        assert after(order.command, "--host") == "127.0.0.1"
    assert after(servers.orders[0].command, "--gpu-memory-utilization") == share


def test_a_small_card_gives_its_server_what_that_needs_and_says_if_it_is_too_little() -> None:
    # 12 GB beside 24: half of it would be less than MinerU asks for vLLM.
    servers = planned(UNEQUAL)
    assert [after(one.command, "--gpu-memory-utilization") for one in servers.orders] == ["0.5", "0.51"]
    assert servers.warnings == ()
    crowded = planned(UNEQUAL, 8)
    assert [order.device for order in crowded.orders] == ["cuda:0", "cuda:1"] * 4
    assert [after(one.command, "--gpu-memory-utilization") for one in crowded.orders[:2]] == ["0.212", "0.212"]
    assert "cuda:1: 2.5 GB for each VLM server is little" in crowded.warnings[1]


def test_servers_alone_on_a_machine_take_more_and_a_share_that_was_set_holds() -> None:
    assert after(planned(TWO_4090, alone=True).orders[0].command, "--gpu-memory-utilization") == "0.85"
    servers = planned(TWO_4090, 4, memory=0.6)
    assert {after(order.command, "--gpu-memory-utilization") for order in servers.orders} == {"0.3"}
    assert servers.taken == {"cuda:0": 0.6, "cuda:1": 0.6}


def test_workers_plan_with_what_the_servers_leave() -> None:
    room = leave_room(EIGHT_A100, planned(EIGHT_A100, memory=0.75))
    assert {worker.environment["MINERU_VIRTUAL_VRAM_SIZE"] for worker in plan(room).workers} == {"20"}
    # As many as fit into a quarter of 80 GB at 8 GB each, with margin.
    rooms = [plan(here, workers_per_device="auto", tier="standard") for here in (EIGHT_A100, room)]
    assert [len(one.workers) for one in rooms] == [32, 8]
    # A laptop of 16 GB holds eight workers, and fewer beside two servers of 4 GB each.
    assert [len(plan(here).workers) for here in (LAPTOP, leave_room(LAPTOP, planned(LAPTOP, 2)))] == [8, 7]
    assert "VLM servers want about 32 GB of main memory, 15.2 GB are available" in planned(LAPTOP, 8).warnings[0]


@pytest.mark.parametrize(
    ("here", "installed", "engine"),
    [
        (TWO_4090, {"vllm", "lmdeploy", "llama-cpp"}, "vllm"),
        (TWO_4090, {"lmdeploy", "llama-cpp"}, "lmdeploy"),
        (TWO_4090, {"llama-cpp"}, "llama-cpp"),
        (ATLAS_800, {"lmdeploy", "llama-cpp"}, "lmdeploy"),
        (M3_MAX, {"vllm", "mlx", "llama-cpp"}, "llama-cpp"),
    ],
)
def test_the_first_engine_that_is_installed_and_runs_there_is_taken(
    here: Machine, installed: set[str], engine: str
) -> None:
    assert planned(here, installed=frozenset(installed)).engine.name == engine


def test_lmdeploy_is_told_address_share_and_kind_of_device_in_its_own_words() -> None:
    order = planned(ATLAS_800, 1, engine="lmdeploy").orders[0]
    assert after(order.command, "--server-port") == "30000"
    assert after(order.command, "--server-name") == "127.0.0.1"
    assert after(order.command, "--cache-max-entry-count") == "0.5"
    assert order.environment["MINERU_LMDEPLOY_DEVICE"] == "ascend"
    assert order.environment["CUDA_VISIBLE_DEVICES"] == "-1"


def test_on_the_cpu_a_number_of_them_share_the_cores_and_see_no_card() -> None:
    servers = planned(LAPTOP, 2)
    assert servers.engine.name == "llama-cpp"
    for order in servers.orders:
        assert order.device == "cpu"
        assert after(order.command, "--n-gpu-layers") == "0"
        assert order.environment["CUDA_VISIBLE_DEVICES"] == "-1"
        assert order.environment["LLAMA_ARG_THREADS"] == "4"
    assert servers.taken == {}


def test_a_server_inherits_what_it_needs_and_neither_keys_nor_the_workers_shares() -> None:
    inherited = {
        "HF_TOKEN": "t",
        "VLLM_API_KEY": "hush",
        "LLAMA_API_KEY": "hush",
        "DOCFLEET_VLM_API_KEYS": "hush",
        "MINERU_VIRTUAL_VRAM_SIZE": "4",
        "MINERU_DEVICE_MODE": "cuda",
        "MINERU_VL_API_KEY": "hush",
    }
    environment = planned(TWO_4090, inherited=inherited).orders[1].environment
    assert environment["HF_TOKEN"] == "t"
    assert environment["MINERU_DEVICE_MODE"] == "cuda:0"
    assert "MINERU_VIRTUAL_VRAM_SIZE" not in environment
    assert "hush" not in environment.values()


def test_what_cannot_be_run_is_refused_with_the_reason_and_the_remedy() -> None:
    assert "cuda: no NVIDIA driver" in refused(LAPTOP)
    assert "or give a number" in refused(LAPTOP)
    assert "`pip install vllm` or `pip install lmdeploy" in refused(TWO_4090, installed=frozenset())
    assert "Install it: `pip install lmdeploy" in refused(TWO_4090, engine="lmdeploy", installed=frozenset({"vllm"}))
    assert "engines that do: llama-cpp" in refused(LAPTOP, 1, engine="vllm")
    assert "Name it: llama-cpp" in refused(LAPTOP, 1, installed=None)
    assert "cannot be had with llama-cpp" in refused(LAPTOP, 1, memory=0.5)
    assert "use vlm_server_port" in refused(TWO_4090, options="--port=8000")
    assert "use vlm_server_memory" in refused(TWO_4090, options="--gpu-memory-utilization 0.3")
    assert "No closing quotation" in refused(TWO_4090, options="--chat-template 'x")
    assert "cuda:7 is not here" in refused(TWO_4090, devices="cuda:7")


@pytest.mark.parametrize("number", ["auto", 2])
def test_servers_run_on_cards_on_which_nothing_in_the_workers_environment_computes(number: Any) -> None:
    bare = tuple(replace(card, lacks="nothing that is installed can compute on it") for card in TWO_4090.accelerators)
    here = replace(TWO_4090, accelerators=bare)
    servers = planned(here, number)
    assert [order.device for order in servers.orders] == ["cuda:0", "cuda:1"]
    assert {worker.device for worker in plan(leave_room(here, servers)).workers} == {"cpu"}
    assert "`pip install vllm`" in refused(here, number, installed=frozenset())


def test_no_server_runs_on_a_device_with_a_fault_of_its_own() -> None:
    sick, well = (replace(chip, lacks="torch_npu is not installed") for chip in ATLAS_800.accelerators[:2])
    sick = replace(sick, blocked="its health is Critical")
    servers = planned(replace(ATLAS_800, accelerators=(sick, well)))
    assert [order.device for order in servers.orders] == ["npu:1"]
    assert "npu:0: its health is Critical." in refused(replace(ATLAS_800, accelerators=(sick,)))


@pytest.mark.parametrize("options", ["--api-key hush", "--api-key=hush", "--api-keys hush hush", "--api_key hush"])
def test_a_key_for_servers_beside_the_workers_is_refused_and_not_repeated(options: str) -> None:
    message = refused(TWO_4090, options=f"--enforce-eager {options}")
    assert "leave it out" in message
    assert "hush" not in message
    # On a machine of their own they are asked by whoever was told.
    assert "hush" in " ".join(planned(TWO_4090, options=options, alone=True).orders[0].command)


def test_an_engine_that_nobody_can_look_for_is_taken_at_its_word() -> None:
    assert planned(TWO_4090, engine="vllm", installed=None).engine.name == "vllm"


def test_ports_that_somebody_has_are_passed_over_and_free_ones_stay_the_same() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        find = free_ports("127.0.0.1", port)
        first = find(2)
        assert port not in first
        assert find(2) == first
    assert free_ports("127.0.0.1", port)(1) == [port]


def test_an_address_of_another_machine_is_told_as_that() -> None:
    with pytest.raises(ConfigurationError, match=r"192\.0\.2\.1: it is not an address of this machine"):
        free_ports("192.0.2.1", 30000)(1)


def test_addresses_join_the_pool_without_keys_and_results_do_not_depend_on_the_ports(tmp_path: Path) -> None:
    def pool(port: int) -> Any:
        own = OwnServers(urls=(f"http://127.0.0.1:{port}",), identity="local:vllm", state_file=tmp_path / "s")
        pool = plan_pool(Settings(vlm_endpoints=("http://a:1",), vlm_api_keys=("hush",)), own)
        assert pool is not None
        pool.gate.listening.close()
        return pool

    one, two = pool(30000), pool(30007)
    assert [(member.url, member.key) for member in one.members] == [
        ("http://a:1", "hush"),
        ("http://127.0.0.1:30000", ""),
    ]
    assert "http://127.0.0.1:30000" in one.allowed
    # What is drained of them comes back with the next start, at whatever port.
    assert one.lasting == {"http://a:1"}
    assert one.identity == two.identity == ("http://a:1", "local:vllm", "")


def test_orders_survive_the_way_to_the_launcher(tmp_path: Path) -> None:
    orders = LaunchOrders(servers=planned(TWO_4090).orders, folder=tmp_path, start_seconds=60)
    assert LaunchOrders.from_json(orders.to_json()) == orders


def test_a_folder_is_held_by_one_launcher_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leftovers, "_PATIENCE", 0.0)
    with (
        only_one(tmp_path / "vlm"),
        pytest.raises(ConfigurationError, match="Another launcher keeps its VLM servers"),
        only_one(tmp_path / "vlm"),
    ):
        pass
    with only_one(tmp_path / "vlm"):
        pass
