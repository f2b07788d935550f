"""Environment variables of other programs that mean one of our settings: a deployment that has them need not change.

| variable | setting |
|---|---|
| `VLLM_PORTS=8001,8002` | `vlm_endpoints`: these ports, on the host of `vlm_server_url`, else on this machine |
| `USE_MULTI_VLLM=false` | only the first of `VLLM_PORTS` |
| `USE_CONCURRENT=false` | `vlm_serial` |
| `MAX_WORKERS` | `max_workers` |
| `MINERU_VL_SERVER`, `MINERU_MODEL_VLM_SERVER_URL` | `vlm_server_url` (MinerU's own client) |
| `MINERU_VL_API_KEY`, `MINERU_MODEL_VLM_API_KEY` | `vlm_api_keys` (MinerU's own client) |
| `MINERU_VL_MODEL_NAME`, `MINERU_MODEL_VLM_MODEL` | `vlm_model` (MinerU's own client) |

A `DOCFLEET_` variable and the command line win over all of these; they win over the settings file.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

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


def settings_of(environ: Mapping[str, str], server_url: str | None) -> dict[str, tuple[str, object]]:
    """Return (variable, value) by setting.

    Args:
        environ: environment variables.
        server_url: `vlm_server_url` as another source gives it; the ports are those of its host.

    Raises:
        ConfigurationError: a variable has a value that cannot be used.
    """
    found: dict[str, tuple[str, object]] = {}
    for name, variables in _RENAMED.items():
        for variable in variables:
            if environ.get(variable, "").strip():
                found.setdefault(name, (variable, environ[variable].strip()))
    if environ.get("VLLM_PORTS", "").strip():
        if server_url is None and "vlm_server_url" in found:
            server_url = str(found["vlm_server_url"][1])
        found["vlm_endpoints"] = ("VLLM_PORTS", _ports(environ, server_url))
    if environ.get("USE_CONCURRENT", "").strip():
        found["vlm_serial"] = ("USE_CONCURRENT", not _switch(environ, "USE_CONCURRENT"))
    return found


def _ports(environ: Mapping[str, str], server_url: str | None) -> tuple[str, ...]:
    ports = [part.strip() for part in environ["VLLM_PORTS"].split(",") if part.strip()]
    if not all(port.isdecimal() and 0 < int(port) < 65536 for port in ports):
        raise ConfigurationError("VLLM_PORTS must be ports with commas between them, such as 8001,8002.")
    if environ.get("USE_MULTI_VLLM", "").strip() and not _switch(environ, "USE_MULTI_VLLM"):
        ports = ports[:1]
    try:
        parts = urlsplit(server_url or "http://127.0.0.1")
        host = parts.hostname or ""
    except ValueError:
        raise ConfigurationError("vlm_server_url is no http or https address.") from None
    host = f"[{host}]" if ":" in host else host
    return tuple(f"{parts.scheme}://{host}:{port}" for port in ports)


def _switch(environ: Mapping[str, str], variable: str) -> bool:
    word = environ[variable].strip().lower()
    if word not in _YES | _NO:
        raise ConfigurationError(f"{variable} must be true or false.")
    return word in _YES
