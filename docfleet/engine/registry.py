"""Find engines by name: those that ship, those that installed packages add, and those named as `module:Class`."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import entry_points

from docfleet.engine.interface import Engine
from docfleet.errors import EngineMissing

#: Packages add engines to this group: `name = "module:Class"`.
ENTRY_POINT_GROUP = "docfleet.engines"

_SHIPPED = {
    "mineru": "docfleet.engine.mineru.engine:MinerUEngine",
    "embedded": "docfleet.engine.embedded.engine:EmbeddedEngine",
}


def build_engines(names: Sequence[str]) -> list[Engine]:
    """Build one engine for each name, in order; none is loaded yet.

    Raises:
        EngineMissing: a name that nothing provides, or whose module does not import.
    """
    return [_build(name) for name in names]


def check_names(names: Sequence[str]) -> None:
    """Look the names up without importing anything: a mistake in one is told before workers are started.

    Raises:
        EngineMissing: a name that nothing provides.
    """
    if not names:
        raise EngineMissing(f"No engine is named in the setting engines; known are {', '.join(sorted(_known()))}.")
    for name in names:
        _target(name)


def _known() -> dict[str, str]:
    return _SHIPPED | {point.name: point.value for point in entry_points(group=ENTRY_POINT_GROUP)}


def _target(name: str) -> str:
    target = name if ":" in name else _known().get(name)
    if target is None:
        known = ", ".join(sorted(_known()))
        raise EngineMissing(f"There is no engine {name!r}; known are {known}, or write module:Class.")
    return target


def _build(name: str) -> Engine:
    module, _, attribute = _target(name).partition(":")
    try:
        engine: Engine = getattr(import_module(module), attribute)()
    except (ImportError, AttributeError) as exc:
        raise EngineMissing(f"Engine {name!r} does not import: {exc}.") from exc
    return engine
