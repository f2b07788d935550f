"""Which files the client takes, what it calls their results, and what it believes of a server."""

from __future__ import annotations

import re
import shlex
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest

import client
from client import Input, MineruError, Places, Settings, find_inputs, local_names


def made(root: Path, *names: str) -> list[Path]:
    paths = [root / name for name in names]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return paths


def found(*paths: Path | str, root: Path, recursive: bool = True) -> list[str]:
    items = find_inputs(paths, recursive=recursive, skip=root / "out")
    return [item.problem or item.path.relative_to(root).as_posix() for item in items]


def test_a_folder_gives_known_files_in_depth_without_hidden_ones_links_to_folders_and_results(tmp_path: Path) -> None:
    made(
        tmp_path, "b.PDF", "a.docx", "notes.txt", "sub/c.png", ".git/d.pdf", "._b.pdf", "~$a.docx", "out/a/images/e.png"
    )
    (tmp_path / "loop").symlink_to(tmp_path)
    assert found(tmp_path, root=tmp_path) == ["sub/c.png", "a.docx", "b.PDF"]
    assert found(tmp_path, root=tmp_path, recursive=False) == ["a.docx", "b.PDF"]


def test_a_named_file_is_taken_whatever_it_is_called(tmp_path: Path) -> None:
    (path,) = made(tmp_path, "report.final")
    assert found(path, root=tmp_path) == ["report.final"]


def test_a_name_with_glob_characters_that_exists_is_that_file(tmp_path: Path) -> None:
    path, _other = made(tmp_path, "a[1].pdf", "a1.pdf")
    assert found(path, root=tmp_path) == ["a[1].pdf"]


def test_a_glob_gives_files_and_mirrors_below_its_plain_part(tmp_path: Path) -> None:
    made(tmp_path, "x/1/a.pdf", "x/2/a.pdf", "x/2/b.png")
    items = list(find_inputs([f"{tmp_path}/x/*/a.pdf"], recursive=True, skip=tmp_path / "out"))
    assert [(item.path.relative_to(tmp_path).as_posix(), item.root.name) for item in items] == [
        ("x/1/a.pdf", "x"),
        ("x/2/a.pdf", "x"),
    ]


def test_what_stands_for_nothing_is_an_input_with_a_problem(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert found(tmp_path / "empty", root=tmp_path) == ["holds no document of a known type"]
    assert found(f"{tmp_path}/*.pdf", root=tmp_path) == ["matches no file"]


def test_a_folder_that_cannot_be_listed_is_named(tmp_path: Path) -> None:
    (item,) = client._walk(tmp_path / "gone", tmp_path, True, tmp_path / "out")
    assert item.problem == "cannot be listed: No such file or directory"


def places(out: Path, *items: tuple[str, str], known: dict[str, str] | None = None) -> list[str]:
    table = Places(out, known or {})
    return [table.assign(Input(Path(path), Path(root))) for path, root in items]


def test_results_mirror_the_folder_asked_for(tmp_path: Path) -> None:
    assert places(tmp_path, ("/d/a/b.pdf", "/d"), ("/d/b.pdf", "/d"), ("/e/c.pdf", "/e")) == ["a/b", "b", "c"]


def test_inputs_of_one_name_never_share_a_place(tmp_path: Path) -> None:
    items = [("/d/x.pdf", "/d"), ("/d/x.docx", "/d"), ("/e/x.pdf", "/e"), ("/f/e/x.pdf", "/f/e"), ("/d/X.PDF", "/d")]
    given = places(tmp_path, *items)
    assert given[:3] == ["x", "x-docx", "e/x"]
    assert len({place.casefold() for place in given}) == 5


def test_no_result_lies_inside_another(tmp_path: Path) -> None:
    assert places(tmp_path, ("/d/a/b.pdf", "/d"), ("/d/a.pdf", "/d")) == ["a/b", "a-pdf"]
    first, second = places(tmp_path, ("/d/a.pdf", "/d"), ("/d/a/b.pdf", "/d"))
    assert not second.startswith(f"{first}/")


def test_the_journal_keeps_places_stable_when_inputs_come_in_another_order(tmp_path: Path) -> None:
    first = places(tmp_path, ("/d/x.docx", "/d"), ("/d/x.pdf", "/d"))
    known = {"/d/x.docx": first[0], "/d/x.pdf": first[1]}
    assert places(tmp_path, ("/d/x.pdf", "/d"), ("/d/x.docx", "/d"), known=known) == [first[1], first[0]]


def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    made(tmp_path, "paper/notes.txt", f"mine/{client.MARKER}")
    (tmp_path / "file").write_text("x")
    items = [(f"/d/{name}.pdf", "/d") for name in ("paper", "mine", "file")]
    assert places(tmp_path, *items) == ["paper-pdf", "mine", "file-pdf"]


@pytest.mark.parametrize(
    "name", ["..pdf", "a\nb\x1b[31m.pdf", "con:<x>|?.pdf", "é" * 120 + ".pdf", "\udcff.pdf", " . .pdf"]
)
def test_any_name_becomes_one_that_every_file_system_takes(name: str, tmp_path: Path) -> None:
    (place,) = places(tmp_path, (f"/d/{name}", "/d"))
    assert len(place.encode()) <= 120
    assert place == place.strip(" .")
    assert place.isprintable()
    assert not set(place) & set('<>:"/\\|?*')


@pytest.mark.parametrize(
    "name",
    [
        "../x",
        "/etc/x",
        "images/../../x",
        "a\\..\\x",
        "",
        ".",
        "images/",
        "images//a",
        "a\x00b",
        "C:x",
        ".hidden",
        "a/b/c/d/e",
    ],
)
def test_a_file_name_that_could_leave_the_folder_is_refused(name: str) -> None:
    with pytest.raises(MineruError, match="refused") as caught:
        local_names({"document.md": "/f", name: "/x"}, "paper")
    assert not caught.value.retryable


@pytest.mark.parametrize("names", [("document.md", "paper.md"), ("A.json", "a.json"), (client.MARKER,)])
def test_file_names_that_would_overwrite_each_other_are_refused(names: tuple[str, ...]) -> None:
    with pytest.raises(MineruError, match="refused"):
        local_names(dict.fromkeys(names, "/x"), "paper")


def test_the_markdown_takes_the_name_of_the_document() -> None:
    files = dict.fromkeys(("document.md", "content_list.json", "images/a b (1).png"), "/x")
    assert local_names(files, "paper") == {
        "document.md": "paper.md",
        "content_list.json": "content_list.json",
        "images/a b (1).png": "images/a b (1).png",
    }


def test_retry_after_is_read_as_seconds_and_as_a_date() -> None:
    ahead = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    assert client._retry_after({"Retry-After": "7"}) == 7
    assert 55 < (client._retry_after({"Retry-After": ahead}) or 0) <= 60
    assert client._retry_after({"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0
    for useless in ("", "soon", "-1", "nan", "inf"):
        assert client._retry_after({"Retry-After": useless}) is None


def test_links_go_to_the_server_that_was_asked_and_nowhere_else() -> None:
    assert client._link_url("http://a:1", "/jobs/1/files/x?y=1") == "http://a:1/jobs/1/files/x?y=1"
    assert client._link_url("http://a:1", "https://evil.example/jobs/1") == "http://a:1/jobs/1"
    assert client._link_url("http://a/fleet", "/jobs/1") == "http://a/fleet/jobs/1"
    assert client._link_url("http://a/fleet", "/fleet/jobs/1") == "http://a/fleet/jobs/1"


@pytest.mark.parametrize("url", ["http://h:1", "http://h:1/", "http://h:1/predict", " http://h:1/predict/ "])
def test_the_address_may_end_in_predict(url: str) -> None:
    assert client._base_url(url) == "http://h:1"


@pytest.mark.parametrize("url", ["", "h:8000", "ftp://h", "http://"])
def test_an_address_that_is_none_is_a_value_error(url: str) -> None:
    with pytest.raises(ValueError, match="HTTP address"):
        client._base_url(url)


def test_options_by_pattern_go_before_those_of_all_and_the_later_before_the_earlier() -> None:
    per_file = {"*.png": {"method": "ocr", "lang": "en"}, "old/*": {"lang": "ch"}, "one.pdf": {"end_page_id": 3}}
    settings = Settings(options={"method": "auto", "tier": "flash"}, per_file=per_file)
    assert settings.options_for(Path("/d/one.pdf")) == {"method": "auto", "tier": "flash", "end_page_id": 3}
    assert settings.options_for(Path("/d/old/s.png")) == {"method": "ocr", "tier": "flash", "lang": "ch"}


def test_settings_never_show_the_key() -> None:
    assert "secret" not in repr(Settings(api_key="secret"))


def test_text_from_outside_cannot_steer_the_terminal() -> None:
    assert client._printable("a\x1b[31mb\r\nc\x9bd\u2028é") == "a\ufffd[31mb\ufffd\ufffdc\ufffdd\ufffdé"


def test_the_file_imports_nothing_but_aiohttp_and_rich_and_says_so_in_its_header() -> None:
    import ast
    import sys

    text = Path(client.__file__).read_text(encoding="utf-8")
    imported = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            imported |= {name.name.split(".")[0] for name in node.names}
        if isinstance(node, ast.ImportFrom):
            imported.add((node.module or "").split(".")[0])
    assert imported - set(sys.stdlib_module_names) == {"aiohttp", "rich"}
    assert 'dependencies = ["aiohttp>=3.10", "rich>=13"]' in text.split('"""')[0]


def test_every_command_shown_is_understood_and_every_option_is_explained() -> None:
    guide = (Path(client.__file__).parent / "docs" / "client.md").read_text(encoding="utf-8")
    shown = re.findall(r"^    (?:\$ )?python client\.py (.+)$", guide + (client.__doc__ or ""), re.MULTILINE)
    assert len(shown) >= 6
    for command in shown:
        assert client._parser().parse_args(shlex.split(command)).out == "results"
    flags = re.findall(r"^  (--[a-z-]+)", client._parser().format_help(), re.MULTILINE)
    assert len(flags) > 20
    known = guide.replace("[no-]", "")
    assert [flag for flag in flags if flag not in known] == []


def test_folders_give_every_type_that_the_server_reads() -> None:
    from docfleet.documents.kinds import KINDS

    assert {suffix.removeprefix(".") for suffix in client.KNOWN_SUFFIXES} >= KINDS
