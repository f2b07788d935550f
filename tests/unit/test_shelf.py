"""Finished pages on their shelf: whole or not there, whoever is killed, in whatever moment, beside whomever."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest

from docfleet.files import DataFolder, new_job_id
from docfleet.records import Document
from docfleet.shelf.folder import DRAFTS, FolderShelf, Shelves
from docfleet.shelf.keeping import Weights, clear_drafts, drop_documents, make_room
from tests.serving import ROOT

DIGEST = "ab" * 32


def shelf(root: Path, document: str = DIGEST, made_by: str = "engine 1") -> FolderShelf:
    return FolderShelf(root=root, document=document, made_by=made_by)


def files(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.is_file())


def content(number: int, size: int = 20_000) -> bytes:
    return sha256(str(number).encode()).digest() * (size // 32)


def test_a_piece_comes_back_as_it_was_put_and_only_under_its_own_name(tmp_path: Path) -> None:
    kept = shelf(tmp_path)
    kept.put({"page": 1, "method": "ocr"}, b"one\nand more")
    kept.put({"page": 2}, b"")
    other = shelf(tmp_path)
    assert other.get({"method": "ocr", "page": 1}) == b"one\nand more"
    assert other.get({"page": 2}) == b""
    assert other.taken == 2
    assert other.holds({"page": 2})
    for stranger, piece in (
        (other, {"page": 1}),
        (other, {"page": 1, "method": "txt"}),
        (shelf(tmp_path, document="cd" * 32), {"page": 2}),
        (shelf(tmp_path, made_by="engine 2"), {"page": 2}),
    ):
        assert not stranger.holds(piece)
        assert stranger.get(piece) is None


@pytest.mark.parametrize(
    "harm",
    [
        lambda path: path.unlink(),
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(path.read_bytes()[:20]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes() + b"x"),
        lambda path: path.write_bytes(b"garbage\n" * 100),
        lambda path: path.write_bytes(path.read_bytes().replace(b"content", b"CONTENT")),
    ],
    ids=["deleted", "cut by a byte", "cut in the header", "empty", "longer", "garbage", "changed"],
)
def test_a_harmed_file_is_no_piece_and_makes_room_for_a_new_one(harm: Callable[[Path], object], tmp_path: Path) -> None:
    kept = shelf(tmp_path)
    kept.put({"page": 1}, b"content " * 50)
    (path,) = files(tmp_path)
    harm(path)
    assert kept.get({"page": 1}) is None
    assert not files(tmp_path)
    kept.put({"page": 1}, b"anew")
    assert kept.get({"page": 1}) == b"anew"


def test_a_piece_that_lies_under_another_ones_name_is_not_believed(tmp_path: Path) -> None:
    kept = shelf(tmp_path)
    kept.put({"page": 1}, b"one")
    (one,) = files(tmp_path)
    kept.put({"page": 2}, b"two")
    (two,) = set(files(tmp_path)) - {one}
    one.replace(two)
    assert kept.get({"page": 2}) is None


def test_what_cannot_be_kept_fails_nothing(tmp_path: Path) -> None:
    (tmp_path / "root").write_text("no folder")
    kept = shelf(tmp_path / "root")
    kept.put({"page": 1}, b"one")
    assert kept.get({"page": 1}) is None
    assert not kept.holds({"page": 1})


def test_an_unusable_attempt_takes_back_what_it_took_and_kept_and_nothing_else(tmp_path: Path) -> None:
    earlier = shelf(tmp_path)
    for page in range(3):
        earlier.put({"page": page}, b"x")
    attempt = shelf(tmp_path)
    attempt.get({"page": 0})
    attempt.put({"page": 3}, b"y")
    attempt.forget()
    assert [page for page in range(4) if earlier.holds({"page": page})] == [1, 2]


def test_only_documents_that_may_be_shared_lie_where_others_look(tmp_path: Path) -> None:
    folder, document = DataFolder(tmp_path), Document(filename="a.pdf", suffix="pdf", size=1, sha256=DIGEST, pages=1)
    first, second = new_job_id(), new_job_id()
    open_to_all = Shelves(folder, "engines")
    closed = Shelves(folder, "engines", shared=False)

    def of(shelves: Shelves, job: str, *, shared: bool) -> FolderShelf:
        return shelves.of(document, job, engine="embedded", tier="flash", shared=shared)

    for shelves, shared in ((open_to_all, False), (closed, True)):
        of(shelves, first, shared=shared).put({"page": 1}, b"mine")
        assert of(shelves, first, shared=shared).get({"page": 1}) == b"mine"
        assert of(shelves, second, shared=shared).get({"page": 1}) is None
        assert of(open_to_all, second, shared=True).get({"page": 1}) is None
    assert all(path.is_relative_to(folder.work(first)) for path in files(tmp_path))
    of(open_to_all, first, shared=True).put({"page": 1}, b"everybody's")
    assert of(open_to_all, second, shared=True).get({"page": 1}) == b"everybody's"
    assert open_to_all.of(document, second, engine="mineru", tier="flash", shared=True).get({"page": 1}) is None
    assert open_to_all.of(document, second, engine="embedded", tier="basic", shared=True).get({"page": 1}) is None


def test_the_pieces_that_were_not_used_for_longest_go_first(tmp_path: Path) -> None:
    for number in range(10):
        one = shelf(tmp_path, document=f"{number % 2}" * 64)
        one.put({"page": number}, content(number))
    for age, path in enumerate(sorted(files(tmp_path), key=lambda path: path.stat().st_mtime_ns)):
        os.utime(path, (1000.0 + age, 1000.0 + age))
    # The oldest of all is used again.
    assert shelf(tmp_path, document="0" * 64).get({"page": 0}) == content(0)
    weight = Weights(tmp_path).total()
    assert make_room(tmp_path, weight) == 0
    assert make_room(tmp_path, weight // 2) == 6
    left = [n for n in range(10) if shelf(tmp_path, document=f"{n % 2}" * 64).holds({"page": n})]
    assert left == [0, 7, 8, 9]
    assert make_room(tmp_path, 0) == 4
    assert not [path for path in tmp_path.iterdir() if path.name != DRAFTS]


def test_weights_follow_what_is_put_and_removed_and_strange_names_are_left_alone(tmp_path: Path) -> None:
    weights = Weights(tmp_path / "none yet")
    assert (weights.total(), weights.documents()) == (0, [])
    weights = Weights(tmp_path)
    sizes = []
    for number in range(5):
        shelf(tmp_path, document=f"{number}" * 64).put({"page": 1}, content(number))
        sizes.append(weights.total())
    assert sizes == [size * sizes[0] for size in range(1, 6)]
    drop_documents(tmp_path, ["3" * 64, "../.."])
    shelf(tmp_path, document="1" * 64).put({"page": 2}, content(2))
    assert weights.total() == sizes[-1]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("x")
    assert len(weights.documents()) == 4
    make_room(tmp_path, 0)
    assert (tmp_path / "mine" / "file").exists()


def test_folders_that_have_settled_are_not_looked_into_again_until_they_change(tmp_path: Path) -> None:
    kept = shelf(tmp_path)
    kept.put({"page": 1}, content(1))
    (path,) = files(tmp_path)
    os.utime(path.parent, (time.time() - 60, time.time() - 60))
    weights = Weights(tmp_path)
    before = weights.total()
    # The size changes and the folder does not, as no writer here would do: a look into the folder would see it.
    path.write_bytes(b"")
    assert weights.total() == before
    kept.put({"page": 2}, content(2))
    assert weights.total() == before


#: A process that puts and gets without end, and ends with status 3 if it ever sees a wrong piece.
_BUSY = """
import random, sys
from pathlib import Path
from tests.unit.test_shelf import content, shelf
kept = shelf(Path(sys.argv[1]))
print("at it", flush=True)
while True:
    page = random.randrange(20)
    found = kept.get({"page": page})
    if found not in (None, content(page)):
        sys.exit(3)
    kept.put({"page": page}, content(page))
"""


def busy(root: Path) -> subprocess.Popen[bytes]:
    """Return such a process, at work."""
    process = subprocess.Popen([sys.executable, "-c", _BUSY, str(root)], cwd=ROOT, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"at it\n"
    return process


def test_a_kill_at_any_moment_leaves_whole_pieces_and_drafts_that_are_cleared(tmp_path: Path) -> None:
    for round_ in range(5):
        process = busy(tmp_path)
        time.sleep(0.017 * round_)
        process.send_signal(signal.SIGKILL)
        assert process.wait(30) == -signal.SIGKILL
        for page in range(20):
            assert shelf(tmp_path).get({"page": page}) in (None, content(page))
    # One more, cut off in the middle for certain.
    draft = tmp_path / DRAFTS / "cut"
    draft.write_bytes(b"docfleet piece 1 ")
    clear_drafts(tmp_path)
    assert draft.exists()
    clear_drafts(tmp_path, older_than=0)
    assert not files(tmp_path / DRAFTS)
    assert all(path.parent.name == DIGEST for path in files(tmp_path))


def test_many_processes_put_take_and_make_room_at_once_and_nobody_reads_a_wrong_piece(tmp_path: Path) -> None:
    makers = [busy(tmp_path) for _ in range(2)]
    code = """
import sys
from pathlib import Path
from docfleet.shelf.keeping import make_room
while True:
    make_room(Path(sys.argv[1]), 100_000)
"""
    removers = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT) for _ in range(2)]
    everybody = [*makers, *removers]
    try:
        until = time.monotonic() + 1.5
        while time.monotonic() < until:
            make_room(tmp_path, 100_000)
            time.sleep(0.05)
        assert [process.poll() for process in everybody] == [None] * 4
    finally:
        for process in everybody:
            process.kill()
            process.wait(30)
    make_room(tmp_path, 100_000)
    assert Weights(tmp_path).total() <= 100_000
