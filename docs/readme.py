"""Renew the tables of README.md and docs/metrics.md from the code: `python docs/readme.py`.

Tests hold that they are up to date.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from docfleet.metrics.catalogue import METRICS
from docfleet.options import ParseOptions
from docfleet.settings import Settings


def shown(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, tuple):
        value = ",".join(str(item) for item in value)
        return f"`{value}`" if value else "none"
    return f"`{value}`"


def rows(model: type[ParseOptions] | type[Settings]) -> str:
    return "\n".join(
        f"| `{name}` | {shown(field.get_default())} | {field.description} |"
        for name, field in model.model_fields.items()
    )


def renew(text: str) -> str:
    """Return the README with both tables as the code has them."""
    for title, model in (("option", ParseOptions), ("setting", Settings)):
        head = f"| {title} | default | meaning |\n|---|---|---|\n"
        text = re.sub(re.escape(head) + r"(?:[|@][^\n]*\n)*", lambda _, h=head, m=model: h + rows(m) + "\n", text)
    return text


def renew_metrics(text: str) -> str:
    """Return docs/metrics.md with the table as the code has it."""
    head = "| metric | type | labels | meaning | counted since the start of |\n|---|---|---|---|---|\n"
    told = "\n".join(
        f"| `{one.name}` | {one.kind} | {', '.join(one.labels)} | {one.meaning} | {one.since} |"
        for one in METRICS.values()
    )
    return re.sub(re.escape(head) + r"(?:[|][^\n]*\n)*", lambda _: head + told + "\n", text)


if __name__ == "__main__":
    for path, renewed in ((ROOT / "README.md", renew), (ROOT / "docs" / "metrics.md", renew_metrics)):
        path.write_text(renewed(path.read_text()))
