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


def _build(name: str) -> Engine:
    added = {point.name: point.value for point in entry_points(group=ENTRY_POINT_GROUP)}
    target = name if ":" in name else (_SHIPPED | added).get(name)
    if target is None:
        known = ", ".join(sorted(_SHIPPED | added))
        raise EngineMissing(f"There is no engine {name!r}; known are {known}, or write module:Class.")
    module, _, attribute = target.partition(":")
    try:
        engine: Engine = getattr(import_module(module), attribute)()
    except (ImportError, AttributeError) as exc:
        raise EngineMissing(f"Engine {name!r} does not import: {exc}.") from exc
    return engine
