"""Renew the tables of README.md from the code: `python docs/readme.py`. Tests hold that they are up to date."""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

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


if __name__ == "__main__":
    path = ROOT / "README.md"
    path.write_text(renew(path.read_text()))
