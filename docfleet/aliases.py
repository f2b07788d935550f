"""Environment variables of other programs that mean one of our settings: a deployment that has them need not change.

| variable | setting |
|---|---|
| `VLLM_PORTS=8001,8002` | `vlm_endpoints`: these ports, on the host of `vlm_server_url`, else on this machine |
| `USE_MULTI_VLLM=false` | one server: the first of `vlm_server_url` if that is set, else the first of `VLLM_PORTS` |
| `USE_CONCURRENT=false` | `vlm_serial` |
| `MAX_WORKERS` | `max_workers` |
| `MINERU_VL_SERVER`, `MINERU_MODEL_VLM_SERVER_URL` | `vlm_server_url` (MinerU's own client) |
| `MINERU_VL_API_KEY`, `MINERU_MODEL_VLM_API_KEY` | `vlm_api_keys` (MinerU's own client) |
| `MINERU_VL_MODEL_NAME`, `MINERU_MODEL_VLM_MODEL` | `vlm_model` (MinerU's own client) |

A `DOCFLEET_` variable and the command line win over all of these; they win over the settings file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from docfleet.addresses import split_addresses
from docfleet.errors import ConfigurationError

#: Variables that are a setting by another name; of two, the first wins.
_RENAMED = {
    "max_workers": ("MAX_WORKERS",),
    "vlm_server_url": ("MINERU_VL_SERVER", "MINERU_MODEL_VLM_SERVER_URL"),
    "vlm_api_keys": ("MINERU_VL_API_KEY", "MINERU_MODEL_VLM_API_KEY"),
    "vlm_model": ("MINERU_VL_MODEL_NAME", "MINERU_MODEL_VLM_MODEL"),
}
#: Those that MinerU's own client reads: beside a router they would contradict it.
CLIENT_VARIABLES = tuple(name for names in _RENAMED.values() for name in names if name.startswith("MINERU_"))
_YES = frozenset({"1", "true", "yes", "on"})
_NO = frozenset({"0", "false", "no", "off"})


def settings_of(
    environ: Mapping[str, str], *, over: Sequence[object], under: Sequence[object]
) -> dict[str, tuple[str, object]]:
    """Return (variable, value) by setting.

    Args:
        environ: environment variables.
        over: values of `vlm_server_url` in the sources that win over these variables, the winner first.
        under: the same of the settings file.

    Raises:
        ConfigurationError: a variable has a value that cannot be used.
    """
    found: dict[str, tuple[str, object]] = {}
    for name, variables in _RENAMED.items():
        for variable in variables:
            if environ.get(variable, "").strip():
                found.setdefault(name, (variable, environ[variable].strip()))
    many = _switch(environ, "USE_MULTI_VLLM") is not False
    if "vlm_server_url" in found:
        variable, value = found["vlm_server_url"]
        urls = split_addresses(str(value))
        found["vlm_server_url"] = (variable, urls if many else urls[:1])
        under = (urls,)
    if environ.get("VLLM_PORTS", "").strip():
        named = _urls(over[0]) if over else _urls(under[0]) if under else ()
        endpoints = _ports(environ, named[0] if named else "http://127.0.0.1")
        # Whoever wants one server has it in the one that is named.
        found["vlm_endpoints"] = ("VLLM_PORTS", endpoints if many else () if named else endpoints[:1])
    concurrent = _switch(environ, "USE_CONCURRENT")
    if concurrent is not None:
        found["vlm_serial"] = ("USE_CONCURRENT", not concurrent)
    return found


def _urls(written: object) -> tuple[str, ...]:
    if isinstance(written, str):
        return split_addresses(written)
    # What is neither is refused when all settings are put together.
    return tuple(map(str, written)) if isinstance(written, list | tuple) else ()


def remarks(environ: Mapping[str, str], servers: int | None) -> tuple[str, ...]:
    """Return what the user should hear of variables that do not do what they say.

    Args:
        environ: environment variables.
        servers: VLM servers that the settings name, wherever they come from; None: nobody can tell yet.

    Raises:
        ConfigurationError: a variable has a value that cannot be used.
    """
    many = _switch(environ, "USE_MULTI_VLLM")
    if servers is None:
        return ()
    if many is False and servers > 1:
        return (
            f"USE_MULTI_VLLM is false, but settings that win over it name {servers} VLM servers, and all are used. "
            "Name one only, or unset USE_MULTI_VLLM.",
        )
    if many and servers < 2 and not environ.get("VLLM_PORTS", "").strip():
        return (
            f"USE_MULTI_VLLM is true, but {'one VLM server is' if servers else 'no VLM server is'} named. Name them in "
            "VLLM_PORTS=8001,8002 or in vlm_endpoints, or unset USE_MULTI_VLLM.",
        )
    return ()


def _ports(environ: Mapping[str, str], server_url: str) -> tuple[str, ...]:
    ports = [part.strip() for part in environ["VLLM_PORTS"].split(",") if part.strip()]
    if not ports or not all(port.isdecimal() and 0 < int(port) < 65536 for port in ports):
        raise ConfigurationError("VLLM_PORTS must be ports with commas between them, such as 8001,8002.")
    try:
        parts = urlsplit(server_url)
        host = parts.hostname or ""
    except ValueError:
        raise ConfigurationError("vlm_server_url is no http or https address.") from None
    host = f"[{host}]" if ":" in host else host
    return tuple(f"{parts.scheme}://{host}:{port}" for port in ports)


def _switch(environ: Mapping[str, str], variable: str) -> bool | None:
    word = environ.get(variable, "").strip().lower()
    if not word:
        return None
    if word not in _YES | _NO:
        raise ConfigurationError(f"{variable} must be true or false.")
    return word in _YES
