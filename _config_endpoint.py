"""Where MinerU's models come from: Hugging Face, else ModelScope, else a local folder, else the embedded engine.

Decided once, in the main process, before any worker starts; the workers get the answer as environment. The hubs are
asked with HEAD requests in a child process (`docfleet/models/hubs.py`), both at once: a name server or a hub that hangs
cannot be interrupted in a thread, and the main process shall hold no threads when it forks.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from loguru import logger

from docfleet import models
from docfleet.devices.child import Child
from docfleet.errors import ConfigurationError
from docfleet.models.records import HubProbe, ModelSource, Source
from docfleet.models.weights import missing_weights

__all__ = [
    "HubProbe",
    "ModelSource",
    "Source",
    "hub_endpoints",
    "missing_weights",
    "probe_chosen",
    "resolve_model_source",
]

SOURCE_VARIABLE = "MINERU_MODEL_SOURCE"
MODELS_VARIABLE = "MINERU_MODEL_BASE_DIR"

#: Seconds a hub has to answer, from the look-up of its name to the end of the last redirect.
TIMEOUT = 3.0
#: Seconds beyond that for the child process to start on a busy machine.
_GRACE = 5.0

#: A small file beside the weights of tier basic: who serves it serves them.
_REPOSITORY = "MinerU-4_models_onnx"
_PROBE_FILE = "OCR/paddleocr/ch_PP-OCRv6_tiny_det_inference.yml"
_OFFLINE_VARIABLES = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")


def resolve_model_source(
    environ: Mapping[str, str],
    *,
    home: Path,
    models_dir: Path | None = None,
    timeout: float = TIMEOUT,
    endpoints: Mapping[Source, str] | None = None,
) -> ModelSource:
    """Decide where models come from, and log why. Takes no longer than `timeout` and the start of a process.

    Args:
        environ: the user's environment. A set MINERU_MODEL_SOURCE wins (`auto` counts as not set).
        home: folder of Docfleet's that MinerU may write to; it need not exist.
        models_dir: folder of weights; by default MINERU_MODEL_BASE_DIR, or the user's own MinerU folder if it holds
            weights, or `home`/models.
        timeout: seconds for the hubs, which are asked at once.
        endpoints: addresses of the hubs to ask; by default `hub_endpoints(environ)`.

    Raises:
        ConfigurationError: MINERU_MODEL_SOURCE has a value that means nothing.
    """
    folder = _models_folder(environ, home, models_dir)
    chosen = _explicit(environ)
    if chosen is None:
        name, reason, probes = _automatic(environ, folder, timeout, endpoints or hub_endpoints(environ))
    else:
        name, reason, probes = chosen, f"{SOURCE_VARIABLE}={chosen} is set", ()
        if chosen is Source.LOCAL and (missing := missing_weights(folder)):
            logger.warning("Model source local is set, but {}.", missing)
    logger.info("Model source: {} ({}).", name.value, reason)
    return ModelSource(name=name, reason=reason, models_dir=folder, home=home.absolute(), probes=probes)


def probe_chosen(
    source: ModelSource,
    environ: Mapping[str, str],
    *,
    timeout: float = TIMEOUT,
    endpoints: Mapping[Source, str] | None = None,
) -> tuple[HubProbe, ...]:
    """Return what the hubs answer: also the one that the user named, which a start does not ask. For reports.

    Args:
        source: as it was decided.
        environ: the user's environment.
        timeout: seconds for the hub.
        endpoints: addresses of the hubs; by default `hub_endpoints(environ)`.
    """
    addresses = endpoints or hub_endpoints(environ)
    if source.probes or source.name not in addresses:
        return source.probes
    url = addresses[source.name]
    offline = _offline(environ) if source.name is Source.HUGGINGFACE else []
    if offline:
        told = f"{offline[0]} is set"
        return (HubProbe(source=source.name, url=_without_secrets(url), reachable=False, detail=told, seconds=0.0),)
    return tuple(_ask({source.name: url}, timeout))


def hub_endpoints(environ: Mapping[str, str]) -> dict[Source, str]:
    """Return the address of each hub, where its own library would look for it."""
    modelscope = environ.get("MODELSCOPE_ENDPOINT") or environ.get("MODELSCOPE_DOMAIN") or "modelscope.cn"
    if "://" not in modelscope:
        modelscope = f"https://{modelscope}"
    return {
        Source.HUGGINGFACE: environ.get("HF_ENDPOINT") or "https://huggingface.co",
        Source.MODELSCOPE: modelscope,
    }


def _explicit(environ: Mapping[str, str]) -> Source | None:
    word = environ.get(SOURCE_VARIABLE, "").strip().lower()
    if word in ("", "auto"):
        return None
    try:
        return Source(word)
    except ValueError:
        known = ", ".join(["auto", *Source])
        raise ConfigurationError(f"{SOURCE_VARIABLE}={word} is not known; use one of {known}, or unset it.") from None


def _models_folder(environ: Mapping[str, str], home: Path, models_dir: Path | None) -> Path:
    if models_dir is not None:
        return models_dir.expanduser().absolute()
    if environ.get(MODELS_VARIABLE):
        return Path(environ[MODELS_VARIABLE]).expanduser().absolute()
    users = Path(environ.get("MINERU_HOME") or "~/.mineru").expanduser().absolute() / "models"
    return home.absolute() / "models" if missing_weights(users) else users


def _automatic(
    environ: Mapping[str, str], folder: Path, timeout: float, endpoints: Mapping[Source, str]
) -> tuple[Source, str, tuple[HubProbe, ...]]:
    """Go down the list; every step that leads on is one line in the log."""
    hubs = {source: endpoints[source] for source in (Source.HUGGINGFACE, Source.MODELSCOPE) if source in endpoints}
    offline = _offline(environ)
    if offline and Source.HUGGINGFACE in hubs:
        del hubs[Source.HUGGINGFACE]
        logger.warning("No models from huggingface: {} is set.", offline[0])
    probes = tuple(_ask(hubs, timeout))
    for probe in probes:
        if probe.reachable:
            return probe.source, f"{probe.url} answers", probes
        logger.warning("No models from {}: {}, {}.", probe.source.value, probe.url, probe.detail)
    missing = missing_weights(folder)
    if missing:
        logger.warning("No models from a local folder: {}.", missing)
        return Source.EMBEDDED, "no hub can be reached and no weights are here", probes
    return Source.LOCAL, f"no hub can be reached, and weights lie in {folder}", probes


def _offline(environ: Mapping[str, str]) -> list[str]:
    """Return the variables that forbid Hugging Face's libraries to contact the hub."""
    return [name for name in _OFFLINE_VARIABLES if environ.get(name, "").strip().lower() in ("1", "true", "yes", "on")]


def _ask(hubs: Mapping[Source, str], timeout: float) -> Iterator[HubProbe]:
    """Yield the hubs' answers in order of preference, up to the first that can be reached."""
    if not hubs:
        return
    urls = {source: _probe_url(source, endpoint) for source, endpoint in hubs.items()}
    program = Path(models.__file__).with_name("hubs.py")
    # On standard input, because an address may hold a password.
    orders = json.dumps({"hubs": list(urls.items()), "timeout": timeout})
    reply = Child([sys.executable, "-P", str(program)], timeout + _GRACE, message=orders).reply()
    answers = {answer["name"]: answer for answer in _parsed(reply.output)}
    for source, url in urls.items():
        answer = answers.get(source.value, {"reachable": False, "detail": reply.failure or "not asked", "seconds": 0.0})
        yield HubProbe(
            source=source,
            url=_without_secrets(url),
            reachable=answer["reachable"],
            detail=answer["detail"],
            seconds=answer["seconds"],
        )
        if answer["reachable"]:
            return


def _parsed(output: str) -> Iterator[dict[str, Any]]:
    for line in output.splitlines():
        try:
            yield json.loads(line)
        except ValueError:
            # The last line of a child that was killed while it wrote.
            return


def _probe_url(source: Source, endpoint: str) -> str:
    base = endpoint.strip().rstrip("/")
    if source is Source.HUGGINGFACE:
        return f"{base}/opendatalab/{_REPOSITORY}/resolve/main/{_PROBE_FILE}"
    file = quote(_PROBE_FILE, safe="")
    return f"{base}/api/v1/models/OpenDataLab/{_REPOSITORY}/repo?Revision=master&FilePath={file}"


def _without_secrets(url: str) -> str:
    """Return scheme and host alone, in one line: an address may hold a password."""
    scheme, _, rest = "".join(url.split()).rpartition("://")
    host = rest.rpartition("@")[2].partition("/")[0]
    return f"{scheme}://{host}" if scheme else host
