from __future__ import annotations

import runpy
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from docfleet.commandline import option_parser, parse_command_line
from docfleet.errors import ConfigurationError
from docfleet.settings import Settings, resolve

ROOT = Path(__file__).resolve().parents[2]


def test_the_command_line_wins_over_the_environment_the_file_and_the_default(tmp_path: Path) -> None:
    file = tmp_path / "fleet.toml"
    file.write_text('port = 8001\nmax_body_mb = 8\nlog_level = "debug"\n')
    environ = {"DOCFLEET_PORT": "8002", "DOCFLEET_MAX_BODY_MB": "9", "DOCFLEET_CONFIG": str(file)}
    resolved = resolve({"port": "8003"}, environ)
    assert (resolved.settings.port, resolved.settings.max_body_mb, resolved.settings.log_level) == (8003, 9, "debug")
    assert resolved.settings.max_attempts == 3
    assert [resolved.sources[name] for name in ("port", "max_body_mb", "log_level", "max_attempts")] == [
        "command line",
        "environment",
        f"file {file}",
        "default",
    ]


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"port": "80"}, "port"),
        ({"port": "many"}, "port"),
        ({"host": "10.0.0.7"}, "reverse proxy"),
        ({"log_level": "loud"}, "log_level"),
        ({"config": "/nowhere/fleet.toml"}, "cannot be read"),
    ],
)
def test_an_unusable_value_is_refused_and_named(arguments: dict[str, str], word: str) -> None:
    with pytest.raises(ConfigurationError, match=word):
        resolve(arguments, {})


@pytest.mark.parametrize("text", ["port = ", "prot = 8001", "[port]\n"])
def test_an_unusable_file_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "fleet.toml"
    file.write_text(text)
    with pytest.raises(ConfigurationError):
        resolve({"config": str(file)}, {})


def test_a_variable_that_is_empty_is_one_that_nobody_set(tmp_path: Path) -> None:
    file = tmp_path / "fleet.toml"
    file.write_text('vlm_endpoints = ["http://x:1"]\n')
    environ = {"DOCFLEET_PORT": "", "DOCFLEET_VLM_ENDPOINTS": "", "DOCFLEET_CONFIG": str(file)}
    settings = resolve({}, environ).settings
    assert (settings.port, settings.vlm_endpoints) == (8000, ("http://x:1",))


def test_a_variable_that_looks_like_a_setting_and_is_none_is_told_with_what_was_meant() -> None:
    environ = {"DOCFLEET_PROT": "8001", "DOCFLEET_PORT": "8002", "DOCFLEET_API_KEY": "hush", "DOCFLEET_HOME_": "x"}
    (told,) = resolve({}, environ).warnings()
    assert told.endswith("DOCFLEET_HOME_, DOCFLEET_PROT (did you mean DOCFLEET_PORT?).")
    assert resolve({}, {"DOCFLEET_PORT": "8002", "PATH": "/bin"}).warnings() == ()


def test_passwords_in_urls_are_masked_where_settings_are_shown() -> None:
    resolved = resolve(
        {"vlm_server_url": "http://user:hush@host/v1", "allowed_server_urls": "http://a:b@c/,http://d/"}, {}
    )
    assert "hush" not in resolved.explain()
    assert "a:b" not in resolved.explain()
    assert "http://***@host/v1" in resolved.explain()


def test_every_setting_is_an_option_and_is_explained() -> None:
    help_text = option_parser().format_help()
    for name, field in Settings.model_fields.items():
        assert "--" + name.replace("_", "-") in help_text
        assert field.description


def test_show_config_is_understood() -> None:
    resolved, wish = parse_command_line(["--show-config", "--require-accelerator", "--workers", "2"])
    assert wish.show_config
    assert resolved.settings.require_accelerator
    assert resolved.settings.workers == 2


def test_a_tier_without_a_prefetch_is_refused_and_not_passed_over(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_command_line(["--tier", "basic"])
    assert "--tier belongs to --prefetch" in capsys.readouterr().err
    assert [parse_command_line(["--prefetch", *more])[1].tier for more in ([], ["--tier", "basic"])] == [
        "auto",
        "basic",
    ]


def test_for_which_workers_weights_are_fetched_is_said_with_a_prefetch_only(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_command_line(["--prefetch-backend", "torch"])
    assert "--prefetch-backend belongs to --prefetch" in capsys.readouterr().err
    wishes = [parse_command_line(["--prefetch", *more])[1] for more in ([], ["--prefetch-backend", "both"])]
    assert [wish.backend for wish in wishes] == ["auto", "both"]


def test_the_tables_of_the_readme_are_those_of_the_code() -> None:
    renew = runpy.run_path(str(ROOT / "docs" / "readme.py"))["renew"]
    readme = (ROOT / "README.md").read_text()
    assert renew(readme) == readme
    assert all(f"| `{name}` |" in readme for name in Settings.model_fields)


@given(st.dictionaries(st.sampled_from(sorted(Settings.model_fields)), st.text(max_size=20)))
def test_no_text_from_outside_ends_in_anything_but_settings_or_a_clear_refusal(values: dict[str, str]) -> None:
    try:
        resolve(values, {})
    except ConfigurationError as exc:
        assert exc.message
