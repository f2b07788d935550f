from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from docfleet.addresses import address_id, canonical, from_segment, to_segment
from docfleet.errors import ConfigurationError, InvalidOption
from docfleet.options import ParseOptions, parse_options
from docfleet.planning.workers import plan_workers
from docfleet.settings import Settings, resolve
from docfleet.vlm.planning import members_of, plan_pool, workers_for
from tests.unit.test_device_plan import TWO_4090, machine


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("http://Vlm.Example:8000/v1/", "http://vlm.example:8000"),
        ("http://vlm.example:80", "http://vlm.example"),
        ("https://vlm.example:443/a/b/v1", "https://vlm.example/a/b"),
        ("http://[::1]:8001/", "http://[::1]:8001"),
    ],
)
def test_an_address_is_written_in_one_way(written: str, meant: str) -> None:
    assert canonical(written) == meant
    assert canonical(meant) == meant


@pytest.mark.parametrize(
    "written",
    [
        "",
        "vlm.example",
        "ftp://a/",
        "http://",
        "http://u:hush@a/",
        "http://a/?key=hush",
        "http://a b/",
        "http://a:99999",
    ],
)
def test_what_is_no_plain_address_is_refused_and_not_repeated(written: str) -> None:
    with pytest.raises(ValueError, match="address") as caught:
        canonical(written)
    assert "hush" not in str(caught.value)


@given(st.sets(st.integers(1, 65535), min_size=1, max_size=20))
def test_named_servers_survive_a_path_in_whatever_order(ports: set[int]) -> None:
    urls = [f"http://10.0.0.5:{port}" for port in ports]
    segment = to_segment(urls)
    assert segment == to_segment(reversed(urls))
    assert "/" not in segment
    assert from_segment(segment) == {canonical(url) for url in urls}


@given(st.text(max_size=60))
def test_a_segment_of_somebody_elses_making_is_refused_or_names_addresses(segment: str) -> None:
    try:
        named = from_segment(segment)
    except ValueError:
        return
    assert all(canonical(url) == url for url in named)


@pytest.mark.parametrize(
    "given_", ["http://a:1,http://b:2", ["http://a:1", "http://b:2"], '["http://a:1", "http://b:2"]']
)
def test_a_request_names_one_server_or_many(given_: Any) -> None:
    assert parse_options({"server_url": given_}).server_url == "http://a:1,http://b:2"


def test_a_request_does_not_name_hundreds() -> None:
    with pytest.raises(InvalidOption, match="more than"):
        parse_options({"server_url": [f"http://a:{port}" for port in range(1, 100)]})


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"VLLM_PORTS": "8001, 8002"}, ["http://127.0.0.1:8001", "http://127.0.0.1:8002"]),
        ({"VLLM_PORTS": "8001,8002", "USE_MULTI_VLLM": "false"}, ["http://127.0.0.1:8001"]),
        ({"VLLM_PORTS": "8001,8002", "USE_MULTI_VLLM": "1"}, ["http://127.0.0.1:8001", "http://127.0.0.1:8002"]),
        ({"VLLM_PORTS": "8001", "DOCFLEET_VLM_ENDPOINTS": "http://x:1"}, ["http://x:1"]),
        (
            {"VLLM_PORTS": "8001", "DOCFLEET_VLM_SERVER_URL": "https://gpu/v1"},
            ["https://gpu", "https://gpu:8001"],
        ),
        ({"MINERU_VL_SERVER": "http://gpu:30000"}, ["http://gpu:30000"]),
        ({"MINERU_VL_SERVER": "http://a:1/v1, http://b:2,"}, ["http://a:1", "http://b:2"]),
        ({"DOCFLEET_VLM_SERVER_URL": "http://a:1,http://b:2"}, ["http://a:1", "http://b:2"]),
        (
            {"MINERU_VL_SERVER": "http://a:1,http://b:2", "VLLM_PORTS": "8001"},
            ["http://a:1", "http://b:2", "http://a:8001"],
        ),
        ({"MINERU_VL_SERVER": "http://a:1,http://b:2", "USE_MULTI_VLLM": "false"}, ["http://a:1"]),
        (
            {"MINERU_VL_SERVER": "http://gpu:30000", "VLLM_PORTS": "8001,8002", "USE_MULTI_VLLM": "false"},
            ["http://gpu:30000"],
        ),
        ({}, []),
    ],
)
def test_variables_of_other_programs_are_understood(environ: dict[str, str], expected: list[str]) -> None:
    settings = resolve({}, environ).settings
    assert [member.url for member in members_of(settings)] == expected


def test_serial_mode_and_workers_come_from_their_variables_and_say_so() -> None:
    resolved = resolve({}, {"USE_CONCURRENT": "false", "MAX_WORKERS": "3"})
    assert (resolved.settings.vlm_serial, resolved.settings.max_workers, resolved.settings.workers) == (True, 3, None)
    assert resolved.sources["vlm_serial"] == "environment (USE_CONCURRENT)"
    assert resolve({"max_workers": "5"}, {"MAX_WORKERS": "3"}).settings.max_workers == 5
    assert resolve({}, {"USE_CONCURRENT": "true"}).settings.vlm_serial is False


@pytest.mark.parametrize(
    ("environ", "told"),
    [
        ({"USE_MULTI_VLLM": "true"}, "no VLM server is named. Name them in VLLM_PORTS"),
        ({"USE_MULTI_VLLM": "true", "MINERU_VL_SERVER": "http://a:1"}, "one VLM server is named"),
        ({"USE_MULTI_VLLM": "true", "MINERU_VL_SERVER": "http://a:1,http://b:1"}, ""),
        ({"USE_MULTI_VLLM": "true", "VLLM_PORTS": "8001"}, ""),
        ({"USE_MULTI_VLLM": "true", "DOCFLEET_VLM_SERVERS": "auto"}, ""),
        ({"USE_MULTI_VLLM": "true", "DOCFLEET_VLM_SERVERS": "2"}, ""),
        ({"USE_MULTI_VLLM": "false", "DOCFLEET_VLM_ENDPOINTS": "http://a:1,http://b:1"}, "2 VLM servers, and all are"),
        ({"USE_MULTI_VLLM": "false", "VLLM_PORTS": "8001,8002"}, ""),
        ({"USE_MULTI_VLLM": "false"}, ""),
        ({"USE_MULTI_VLLM": ""}, ""),
    ],
    ids=str,
)
def test_a_switch_that_does_not_do_what_it_says_is_told_with_the_remedy(environ: dict[str, str], told: str) -> None:
    warnings = resolve({}, environ).warnings()
    assert len(warnings) == bool(told)
    assert told in "".join(warnings)


def test_the_file_gives_way_to_variables_and_its_server_only_lends_its_host(tmp_path: Path) -> None:
    file = tmp_path / "fleet.toml"
    file.write_text('vlm_server_url = ["http://a:1", "http://b:2"]\nvlm_endpoints = ["http://c:3"]')
    for environ, expected in (
        ({}, ["http://a:1", "http://b:2", "http://c:3"]),
        ({"VLLM_PORTS": "8001"}, ["http://a:1", "http://b:2", "http://a:8001"]),
        ({"VLLM_PORTS": "8001", "MINERU_VL_SERVER": "http://d:4"}, ["http://d:4", "http://d:8001"]),
    ):
        settings = resolve({"config": str(file)}, environ).settings
        assert [member.url for member in members_of(settings)] == expected


@pytest.mark.parametrize(
    "environ",
    [
        {"VLLM_PORTS": "8001,x"},
        {"VLLM_PORTS": "0"},
        {"VLLM_PORTS": ","},
        {"USE_CONCURRENT": "perhaps"},
        {"USE_MULTI_VLLM": "banana"},
    ],
)
def test_a_variable_that_cannot_be_used_is_named(environ: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(environ))):
        resolve({}, environ)


@pytest.mark.parametrize("key", ["a b", "a\nX: 1", "schl\u00fcssel", "\x7f"])
def test_a_key_that_no_header_can_hold_is_refused_and_not_shown(key: str) -> None:
    settings = resolve({"vlm_endpoints": "http://a", "vlm_api_keys": key}, {}).settings
    with pytest.raises(ConfigurationError, match="printable ASCII") as refused:
        members_of(settings)
    assert key not in refused.value.message


def test_keys_go_to_their_servers_one_each_or_one_for_all_and_are_never_shown() -> None:
    resolved = resolve({"vlm_endpoints": "http://a,http://b", "vlm_api_keys": "hush-a,hush-b"}, {})
    assert {member.url: member.key for member in members_of(resolved.settings)} == {
        "http://a": "hush-a",
        "http://b": "hush-b",
    }
    assert "hush" not in resolved.explain() + repr(resolved) + repr(members_of(resolved.settings))
    one = resolve({"vlm_endpoints": "http://a,http://b"}, {"MINERU_VL_API_KEY": "hush"})
    assert {member.key for member in members_of(one.settings)} == {"hush"}
    with pytest.raises(ConfigurationError, match="2 keys for 3"):
        members_of(resolve({"vlm_endpoints": "http://a,http://b,http://c", "vlm_api_keys": "x,y"}, {}).settings)


@pytest.mark.parametrize("setting", ["vlm_server_url", "vlm_endpoints", "allowed_server_urls"])
def test_an_address_that_cannot_be_used_stops_the_start_and_is_not_repeated(setting: str) -> None:
    with pytest.raises(ConfigurationError, match=setting) as caught:
        plan_pool(resolve({setting: "http://ada:hush@a"}, {}).settings)
    assert "hush" not in caught.value.message


def test_without_any_server_there_is_no_pool() -> None:
    assert plan_pool(Settings()) is None


def test_a_pool_names_its_members_and_what_callers_may_name() -> None:
    settings = resolve({"vlm_endpoints": "http://a/v1", "allowed_server_urls": "http://b,http://a"}, {}).settings
    pool = plan_pool(settings)
    assert pool is not None
    with pool.gate.listening:
        assert [member.url for member in pool.members] == ["http://a"]
        assert pool.allowed == ("http://a", "http://b")
        assert pool.gate.token not in repr(pool)


@pytest.mark.parametrize(
    ("planned", "servers", "on_cpu", "most", "expected"),
    [(2, 4, True, None, 4), (8, 4, True, None, None), (2, 4, False, None, None), (2, 4, True, 2, None),
     (2, 4, True, 3, 3), (2, 4, True, 9, 4), (2, 100, True, None, 32), (2, 100, True, 99, 32), (2, 0, True, 9, None)],
)  # fmt: skip
def test_workers_follow_the_servers_where_they_only_wait(
    planned: int, servers: int, on_cpu: bool, most: int | None, expected: int | None
) -> None:
    assert workers_for(planned, servers=servers, on_cpu=on_cpu, most=most) == expected


def test_an_id_is_short_and_the_options_default_to_no_server() -> None:
    assert len(address_id("http://a")) == 12
    assert ParseOptions().server_url is None


@pytest.mark.parametrize(
    ("cores", "gib", "expected"),
    [(2, 64, 4), (64, 64, 8), (2, 7, 2), (2, 8.5, 3)],
    ids=["few cores", "many cores", "too little memory for more", "memory for one more"],
)
def test_a_machine_without_an_accelerator_gets_a_worker_for_each_server_as_memory_allows(
    cores: int, gib: float, expected: int
) -> None:
    assert len(plan_workers(machine(cores, gib), Settings(), servers=4).workers) == expected
    assert len(plan_workers(machine(cores, gib), Settings(workers=1), servers=4).workers) == 1


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [({}, 4), ({"max_workers": 8}, 4), ({"max_workers": 4}, 4), ({"max_workers": 3}, 3), ({"max_workers": 1}, 1),
     ({"workers": 4}, 4), ({"workers": 3}, 3), ({"workers": 1}, 1), ({"workers": 3, "max_workers": 1}, 3),
     ({"workers_per_device": 4, "max_workers": 3}, 3), ({"workers_per_device": "auto"}, 4)],
    ids=str,
)  # fmt: skip
def test_a_wish_or_a_bound_never_gives_fewer_workers_than_it_says_while_servers_need_them(
    wanted: dict[str, Any], expected: int
) -> None:
    planned = plan_workers(machine(2, 64), Settings(**wanted), servers=4)
    assert len(planned.workers) == expected
    assert not any("asked for" in warning for warning in planned.warnings)


def test_more_workers_than_cores_carry_and_servers_need_are_not_started_and_that_is_said() -> None:
    planned = plan_workers(machine(2, 64), Settings(workers=16), servers=4)
    assert len(planned.workers) == 4
    assert any("16 workers on the CPU were asked for; 4 are enough" in warning for warning in planned.warnings)


def test_a_machine_with_cards_keeps_a_worker_for_each_card() -> None:
    assert len(plan_workers(TWO_4090, Settings(), servers=8).workers) == 2
