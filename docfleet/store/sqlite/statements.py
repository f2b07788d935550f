"""The named statements of `queries/*.sql`: `-- name: claim_next` begins one, the next comment or the end ends it."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

_BLOCK = re.compile(r"^-- name: (\w+)\n(.*?)(?=^--|\Z)", re.MULTILINE | re.DOTALL)


@cache
def statements() -> dict[str, str]:
    """Return every statement by its name.

    Raises:
        ValueError: two statements have one name.
    """
    found: dict[str, str] = {}
    for entry in sorted(files(__package__).joinpath("queries").iterdir(), key=lambda entry: entry.name):
        if entry.name.endswith(".sql"):
            for name, text in _BLOCK.findall(entry.read_text("utf-8")):
                if name in found:
                    raise ValueError(f"{entry.name}: the statement {name!r} exists already")
                found[name] = text.strip()
    return found


def sql(name: str) -> str:
    """Return the statement of that name."""
    return statements()[name]
