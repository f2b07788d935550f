"""What is changed of the pool of VLM servers while it works is there after a restart, and its keys are nowhere else."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from loguru import logger

from docfleet.addresses import address_id
from docfleet.errors import StorageUnavailable
from docfleet.files import DataFolder
from docfleet.planning.pool import take_pool
from docfleet.settings import resolve
from docfleet.vlm.changes import Change, Changes, changed
from docfleet.vlm.keeper import Keeper
from docfleet.vlm.planning import PoolPlan
from docfleet.vlm.records import Member

A, B, C = "http://a", "http://b", "http://c"


@pytest.fixture
def folder(tmp_path: Path) -> DataFolder:
    return DataFolder(tmp_path)


def pool_of(folder: DataFolder, **named: str) -> PoolPlan:
    wishes = {"vlm_endpoints": f"{A},{B}", "vlm_api_keys": "hush-a,hush-b", "allowed_server_urls": C} | named
    pool = take_pool(resolve(wishes, {}).settings, folder)
    assert pool is not None
    pool.gate.listening.close()
    return pool


async def test_servers_that_were_added_or_drained_stay_so_in_the_next_run(folder: DataFolder) -> None:
    keeper = Keeper(pool_of(folder))
    await keeper.add(C, "hush-c")
    await keeper.drain(address_id(A))
    again = pool_of(folder)
    assert again.members == (Member(url=B, key="hush-b"), Member(url=C, key="hush-c"))
    # The API process may be replaced while the main process, with its older view, goes on.
    later = Keeper(again)
    await later.drain(address_id(C))
    await later.add(A, None)
    assert pool_of(folder).members == (Member(url=B, key="hush-b"), Member(url=A, key="hush-a"))
    # One that is brought back without a key has the one that it was given last.
    third = Keeper(again)
    await third.add(C, None)
    assert pool_of(folder).members[-1] == Member(url=C, key="hush-c")


async def test_a_server_that_the_settings_allow_no_more_is_not_brought_back(folder: DataFolder) -> None:
    await Keeper(pool_of(folder)).add(C, "hush-c")
    assert [member.url for member in pool_of(folder, allowed_server_urls="").members] == [A, B]


async def test_the_file_is_for_its_owner_alone_and_nothing_is_logged_of_it(folder: DataFolder, told: list[str]) -> None:
    before = os.umask(0)
    try:
        await Keeper(pool_of(folder)).add(C, "hush-c")
    finally:
        os.umask(before)
    assert stat.S_IMODE(folder.vlm_changes.stat().st_mode) == 0o600
    assert list(folder.root.iterdir()) == [folder.vlm_changes]
    folder.vlm_changes.write_text(folder.vlm_changes.read_text()[:-3])
    assert [member.url for member in pool_of(folder).members] == [A, B]
    assert "cannot be read" in "".join(told)
    assert "hush" not in "".join(told) + repr(Change(True, "hush"))


@pytest.fixture
def told() -> Iterator[list[str]]:
    messages: list[str] = []
    number = logger.add(messages.append, level="DEBUG")
    yield messages
    logger.remove(number)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", '{"version": 2, "servers": {}}', '{"version": 1, "servers": {"http://a": 3}}', "\udcff"],
)
def test_a_file_that_cannot_be_understood_changes_nothing(folder: DataFolder, text: str) -> None:
    folder.vlm_changes.write_bytes(text.encode(errors="surrogateescape"))
    assert Changes(folder.vlm_changes).read([A]) == {}


async def test_a_change_that_cannot_be_kept_is_refused_and_nothing_is_changed(folder: DataFolder) -> None:
    pool = pool_of(folder)
    keeper = Keeper(pool)
    # Not even root can put a file there.
    (folder.root / "vlm-servers.json.part").mkdir()
    with pytest.raises(StorageUnavailable):
        await keeper.add(C, "hush-c")
    with pytest.raises(StorageUnavailable):
        await keeper.drain(address_id(A))
    assert pool_of(folder).members == pool.members
    (folder.root / "vlm-servers.json.part").rmdir()
    await keeper.drain(address_id(A))
    assert [member.url for member in pool_of(folder).members] == [B]


def test_what_a_kill_left_in_the_middle_of_a_change_does_not_count_and_goes(folder: DataFolder) -> None:
    kept = Changes(folder.vlm_changes)
    kept.write({A: Change(False)})
    draft = folder.root / "vlm-servers.json.part"
    draft.write_text('{"version": 1, "ser')
    assert kept.read([A, B]) == {A: Change(False)}
    kept.write({B: Change(False)})
    assert kept.read([A, B]) == {B: Change(False)}
    assert not draft.exists()
    assert json.loads(folder.vlm_changes.read_text())["version"] == 1
    assert changed([Member(url=A), Member(url=B)], kept.read([A, B])) == (Member(url=A),)
