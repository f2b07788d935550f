"""Every setting, in one place: its name, default, bounds and meaning; and where its value came from.

Sources, first wins: command line, environment (`DOCFLEET_<NAME>`), variables of other programs that mean the same
(`docfleet.aliases`), TOML file, default. The entry point builds the settings once and hands values down; nothing else
reads the environment.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError

from docfleet import aliases
from docfleet.errors import ConfigurationError

ENVIRONMENT_PREFIX = "DOCFLEET_"
#: The file of settings, the client's key, and what our processes tell their children.
_OTHER_VARIABLES = frozenset({"DOCFLEET_CONFIG", "DOCFLEET_API_KEY", "DOCFLEET_LIFELINE"})

#: Addresses that LitServe can bind (litserve 0.2.19, `LitServer.run`), and a word for the first.
_HOSTS = {"127.0.0.1": "127.0.0.1", "localhost": "127.0.0.1", "0.0.0.0": "0.0.0.0", "::": "::"}  # noqa: S104


def _split(value: Any) -> Any:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def _known_host(value: Any) -> Any:
    if value not in _HOSTS:
        raise ValueError(f"use one of {', '.join(_HOSTS)}; for another address put a reverse proxy in front")
    return _HOSTS[value]


def _blank(value: Any) -> Any:
    return None if value == "" else value


Words = Annotated[tuple[str, ...], BeforeValidator(_split)]
Secrets = Annotated[tuple[SecretStr, ...], BeforeValidator(_split)]
Host = Annotated[str, BeforeValidator(_known_host)]
Count = Annotated[Annotated[int, Field(ge=1, le=512)] | None, BeforeValidator(_blank)]
PerDevice = Annotated[
    Literal["auto"] | Annotated[int, Field(ge=1, le=512)] | None,
    Field(union_mode="left_to_right"),
    BeforeValidator(_blank),
]
Number = Annotated[
    Literal["auto"] | Annotated[int, Field(ge=1, le=64)] | None,
    Field(union_mode="left_to_right"),
    BeforeValidator(_blank),
]
Share = Annotated[Annotated[float, Field(ge=0.05, le=0.95)] | None, BeforeValidator(_blank)]
Spares = Annotated[int, Field(ge=0, le=64)]
Megabytes = Annotated[Annotated[int, Field(ge=0)] | None, BeforeValidator(_blank)]
Folder = Annotated[Path | None, BeforeValidator(_blank)]


class Settings(BaseModel):
    """What holds for one run of the server. Immutable; pickles to child processes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: Host = Field("127.0.0.1", description="address to listen on; 0.0.0.0 for every interface")
    port: int = Field(8000, ge=1024, le=65535, description="port to listen on")
    devices: str = Field("auto", description="auto, cpu, or a list such as cuda:0,cuda:1")
    workers: Count = Field(
        None, description="worker processes in all, as far as memory holds them; by default what suits"
    )
    max_workers: Count = Field(
        None, description="worker processes at most, however many are found right; the number in workers goes over it"
    )
    workers_per_device: PerDevice = Field(
        None,
        description="worker processes on each accelerator, even more than fit; by default 1; auto: as many as its "
        "memory holds",
    )
    spares: Annotated[Literal["auto"] | Spares, Field(union_mode="left_to_right")] = Field(
        "auto",
        description="processes that wait, loaded, to take over from a worker that dies or is replaced; auto: 1 on CPUs "
        "if memory allows, 0 on accelerators, where each would hold the models' memory once more",
    )
    overcommit_cpu: bool = Field(
        False, description="run as many CPU workers as asked for, even more than cores: for engines that mostly wait"
    )
    require_accelerator: bool = Field(False, description="refuse to start without an accelerator")
    sample_seconds: float = Field(
        5, ge=0.1, le=300, description="seconds between two readings of each device's load, memory, heat and power"
    )
    rest_below_device_mb: int = Field(
        512,
        ge=0,
        description="MB of an accelerator's memory; with less free its workers take no new work; 0: never mind",
    )
    rest_below_memory_mb: int = Field(
        128, ge=0, description="the same of main memory, for workers on the CPU, the last of which goes on all the same"
    )
    data_dir: Path = Field(Path("data"), description="folder of uploads, results and the job database")
    models_dir: Folder = Field(
        None, description="folder of model weights; by default MinerU's own if it holds some, else one in data_dir"
    )
    engines: Words = Field(("embedded", "mineru"), description="engines in order of preference: names or module:Class")
    vlm_server_url: Words = Field(
        (), description="VLM server for tiers standard and advanced, or several with commas between them"
    )
    vlm_endpoints: Words = Field((), description="more such servers; all are used at once, none is waited for")
    vlm_api_keys: Secrets = Field(
        (), description="their API keys in the same order, or one for all; better not on the command line"
    )
    vlm_model: str = Field("", description="model to ask them for; by default the one that each offers")
    vlm_serial: bool = Field(False, description="one request at a time over all of them together")
    vlm_max_requests: int = Field(100, ge=1, le=4096, description="requests at once at one of them, at most")
    vlm_timeout: float = Field(180, gt=0, description="seconds after which a request is tried at another of them")
    vlm_patience: float = Field(120, ge=0, description="seconds a page waits while none of them is alive")
    vlm_servers: Number = Field(
        None, description="VLM servers to start on this machine: a number, or auto: one on each accelerator"
    )
    vlm_server_engine: Literal["auto", "vllm", "lmdeploy", "llama-cpp", "mlx"] = Field(
        "auto", description="what they run on; auto: the first of vllm, lmdeploy, llama-cpp that is installed and fits"
    )
    vlm_server_command: str = Field(
        "mineru-openai-server",
        min_length=1,
        description="MinerU's command that starts one; a path where the engine has an environment of its own",
    )
    vlm_server_args: str = Field("", description="further options of the engine, as on a command line")
    vlm_server_port: int = Field(30000, ge=1024, le=65535, description="port of the first of them, if it is free")
    vlm_server_memory: Share = Field(
        None, description="share of a device's memory that they take together; by default 0.5, workers get the rest"
    )
    vlm_server_start_seconds: float = Field(
        1800, gt=0, description="seconds that one gets until it answers, fetching its model included"
    )
    allowed_server_urls: Words = Field(
        (), description="VLM servers that callers may name in server_url, or add while the server runs"
    )
    max_body_mb: int = Field(256, ge=1, le=65536, description="largest request body in MB; larger ones get 413")
    wait_timeout: float = Field(600, gt=0, description="seconds /predict waits before it answers 202 with the job")
    max_attempts: int = Field(3, ge=1, le=20, description="attempts at a page whose worker dies or whose engine fails")
    poison_hours: float = Field(
        24, ge=0, le=8760, description="hours that a document which killed workers is remembered; 0 is not at all"
    )
    deadline_base: float = Field(60, gt=0, description="seconds that every piece of work gets, whatever its pages")
    page_seconds_flash: float = Field(20, gt=0, description="seconds more for each page at tier flash")
    page_seconds_basic: float = Field(160, gt=0, description="the same at tier basic; 160 suits models on a CPU")
    page_seconds_standard: float = Field(160, gt=0, description="the same at tier standard")
    page_seconds_advanced: float = Field(160, gt=0, description="the same at tier advanced")
    worker_memory_mb: int = Field(
        0, ge=0, description="memory in MB over which a worker is killed, its children counted; 0 is no limit"
    )
    max_backlog_pages: int = Field(
        20000, ge=1, le=10_000_000, description="pages accepted and not done; over it new documents get 429"
    )
    max_backlog_jobs: int = Field(
        2000, ge=1, le=1_000_000, description="documents accepted and not done; over it new ones get 429"
    )
    admission_wait: float = Field(30, ge=0, le=600, description="seconds /predict waits for room before it says 429")
    trusted_proxies: Words = Field(
        (), description="addresses or networks of proxies whose X-Forwarded-For is believed; by default nobody's"
    )
    idempotency_hours: float = Field(24, gt=0, le=8760, description="hours that an Idempotency-Key is remembered")
    min_free_disk_mb: int = Field(512, ge=32, description="MB of the disk left free; with less, documents get 507")
    stale_seconds: float = Field(60, ge=5, description="a worker silent for this long is killed and replaced")
    retention_hours: float = Field(168, ge=0, description="hours that results are kept; 0 keeps them for ever")
    max_results_gb: float = Field(0, ge=0, description="GB of results kept, the oldest go first; 0 is no limit")
    reuse_results: bool = Field(True, description="answer a document that was parsed before from its stored result")
    page_cache_gb: float = Field(
        2, ge=0, description="GB of finished pages kept for other requests of a document, unused ones go; 0 keeps none"
    )
    recycle_documents: int = Field(1000, ge=0, description="documents after which a worker is replaced; 0 is never")
    recycle_hours: float = Field(24, ge=0, description="hours after which a worker is replaced; 0 is never")
    recycle_rss_mb: Megabytes = Field(
        None, description="MB of resident memory over which a worker is replaced; by default its share; 0 is never"
    )
    grace_seconds: float = Field(4, ge=0, le=60, description="seconds that requests get to end at shutdown")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="how much is logged")


@dataclass(frozen=True)
class Resolved:
    """The settings, and for each name where its value came from."""

    settings: Settings
    sources: Mapping[str, str]
    #: Environment variables that look like settings and are none.
    unknown: tuple[str, ...] = ()
    #: What is to be said of other programs' variables.
    remarks: tuple[str, ...] = ()

    def warnings(self) -> tuple[str, ...]:
        """Return what the user should hear of before the server starts."""
        if not self.unknown:
            return self.remarks
        told = []
        for variable in self.unknown:
            near = get_close_matches(variable.removeprefix(ENVIRONMENT_PREFIX).lower(), Settings.model_fields, 1)
            told.append(f"{variable} (did you mean {ENVIRONMENT_PREFIX}{near[0].upper()}?)" if near else variable)
        return (f"These environment variables are no settings and do nothing: {', '.join(told)}.", *self.remarks)

    def explain(self) -> str:
        """Return one line a setting: name, value (secrets masked), source."""
        rows = []
        for name, value in self.settings.model_dump(mode="json").items():
            rows.append(f"{name:<20} {masked(value):<32} {self.sources[name]}")
        return "\n".join(rows)


def masked(value: Any) -> str:
    """Return a value as it may be shown."""
    if isinstance(value, list | tuple):
        return ",".join(masked(item) for item in value)
    text = "" if value is None else str(value)
    # A password inside a URL is the one secret a setting may hold.
    scheme, separator, rest = text.partition("://")
    if separator and "@" in rest:
        return f"{scheme}://***@{rest.rpartition('@')[2]}"
    return text


def resolve(arguments: Mapping[str, Any], environ: Mapping[str, str] = os.environ) -> Resolved:
    """Merge the sources.

    Args:
        arguments: parsed command line; None means not given.
        environ: environment variables.

    Raises:
        ConfigurationError: an unreadable file, an unknown name or an unusable value, named with its source.
    """
    layers: list[tuple[str, dict[str, Any]]] = [
        ("command line", {k: v for k, v in arguments.items() if v is not None and k in Settings.model_fields}),
        ("environment", _from_environment(environ)),
    ]
    config_file = arguments.get("config") or environ.get(ENVIRONMENT_PREFIX + "CONFIG")
    file = [(f"file {config_file}", _from_file(Path(config_file)))] if config_file else []
    over, under = (
        [layer["vlm_server_url"] for _, layer in part if "vlm_server_url" in layer] for part in (layers, file)
    )
    found = aliases.settings_of(environ, over=over, under=under)
    for name, (variable, value) in found.items():
        layers.append((f"environment ({variable})", {name: value}))
    layers += file

    values: dict[str, Any] = {}
    sources = dict.fromkeys(Settings.model_fields, "default")
    for source, layer in reversed(layers):
        values |= layer
        sources |= dict.fromkeys(layer, source)
    try:
        settings = Settings.model_validate(values)
    except ValidationError as exc:
        raise ConfigurationError(_explain(exc, sources)) from None
    return Resolved(settings, sources, _unknown(environ), aliases.remarks(environ, _named_servers(settings)))


def _named_servers(settings: Settings) -> int | None:
    """None: as many as there are accelerators."""
    own = settings.vlm_servers or 0
    return None if own == "auto" else own + len({*settings.vlm_server_url, *settings.vlm_endpoints})


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    found = {}
    for name in Settings.model_fields:
        # Compose files and units pass on variables that nobody set as empty ones.
        if value := environ.get(ENVIRONMENT_PREFIX + name.upper()):
            found[name] = value
    return found


def _unknown(environ: Mapping[str, str]) -> tuple[str, ...]:
    known = {ENVIRONMENT_PREFIX + name.upper() for name in Settings.model_fields} | _OTHER_VARIABLES
    return tuple(sorted(name for name in environ if name.startswith(ENVIRONMENT_PREFIX) and name not in known))


def _from_file(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as exc:
        raise ConfigurationError(f"The settings file {path} cannot be read: {exc.strerror}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise ConfigurationError(f"The settings file {path} is not valid TOML: {exc}.") from None


def _explain(exc: ValidationError, sources: Mapping[str, str]) -> str:
    parts = []
    for item in exc.errors(include_url=False, include_context=False, include_input=False):
        name = str(item["loc"][0]) if item["loc"] else "settings"
        if item["type"] == "extra_forbidden":
            parts.append(f"{name} is not a setting (known: {', '.join(Settings.model_fields)})")
        else:
            message = item["msg"].removeprefix("Value error, ")
            parts.append(f"{name} (from {sources.get(name, 'default')}): {message}")
    return "; ".join(parts) + "."
