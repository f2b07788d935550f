"""What a caller may ask for a document: names, bounds and the words of older MinerU versions.

The names come from MinerU 2.x's and 3.x's `/file_parse` form (`backend`, `parse_method` here `method`, `lang`,
`formula_enable`, `table_enable`, `start_page_id`, `end_page_id`, `server_url`), so that callers keep theirs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from docfleet.addresses import MAX_NAMED, split_addresses
from docfleet.errors import InvalidOption


class Tier(StrEnum):
    """How much is spent on a page; `auto` is the best that can run here."""

    AUTO = "auto"
    FLASH = "flash"
    BASIC = "basic"
    STANDARD = "standard"
    ADVANCED = "advanced"


#: Tiers that read pages with a vision-language model on top of the small models.
VLM_TIERS = frozenset({Tier.STANDARD, Tier.ADVANCED})


class Method(StrEnum):
    """Where the text comes from: the file's own text, recognition, or whatever fits the document."""

    AUTO = "auto"
    TXT = "txt"
    OCR = "ocr"


class Shards(StrEnum):
    """What a document may be cut for: the same result sooner, or a nearly equal one sooner still."""

    #: Only where the result stays the same, byte for byte.
    EXACT = "exact"
    #: Digital text at tier flash, too, whose headings and running headers depend on all pages.
    FAST = "fast"


class Format(StrEnum):
    """A file that can be made of a parsed document."""

    MARKDOWN = "markdown"
    CONTENT_LIST = "content_list"
    CONTENT_LIST_V2 = "content_list_v2"
    MIDDLE_JSON = "middle_json"
    STRUCTURED_CONTENT = "structured_content"
    MODEL_OUTPUT = "model_output"
    HTML = "html"
    LATEX = "latex"
    DOCX = "docx"


#: Made when the caller names none.
DEFAULT_FORMATS = (Format.MARKDOWN, Format.CONTENT_LIST)

#: Callers of MinerU 2.x and 3.x say "to the last page" with a very large number.
_LAST_PAGE_WORD = 99999


def tier_of_backend(backend: str) -> Tier:
    """Map a `backend` word of MinerU 2.x, 3.x or 4.x to a tier.

    `pipeline` is basic, `hybrid*` standard, `vlm*` advanced; a tier's own name is itself.

    Raises:
        InvalidOption: the word belongs to none of these families.
    """
    word = backend.strip().lower()
    if word in {"", *Tier}:
        return Tier(word or "auto")
    for prefix, tier in (("pipeline", Tier.BASIC), ("hybrid", Tier.STANDARD), ("vlm", Tier.ADVANCED)):
        if word.startswith(prefix):
            return tier
    raise InvalidOption(f"backend {backend!r} is not known; use auto, flash, pipeline, hybrid-* or vlm-*.")


class ParseOptions(BaseModel):
    """One document's options, validated. Immutable; JSON in the store."""

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True)

    backend: str = Field("auto", max_length=64, description="auto, flash, or a word of MinerU 2.x/3.x: pipeline, vlm-*")
    tier: Tier = Field(Tier.AUTO, description="auto, flash, basic, standard or advanced; wins over backend")
    method: Method = Field(Method.AUTO, description="auto, txt (the file's own text) or ocr (recognise every page)")
    lang: str | None = Field(None, max_length=32, description="accepted for older callers; recognition is multilingual")
    formula_enable: bool = Field(True, description="false drops formulas from the result")
    table_enable: bool = Field(True, description="false drops tables from the result")
    start_page_id: int = Field(0, ge=0, description="first page, counted from 0")
    end_page_id: int | None = Field(None, ge=0, description="last page, counted from 0, inclusive; null is the last")
    server_url: str | None = Field(
        None, max_length=4096, description="VLM servers that this server's settings allow; several with commas between"
    )
    formats: tuple[Format, ...] = Field(DEFAULT_FORMATS, min_length=1, description="files to make of the document")
    shards: Shards = Field(
        Shards.EXACT,
        description="exact, or fast: cut long digital documents at flash, too; the result may differ a little",
    )
    cache: bool = Field(True, description="false parses again whatever is stored, and serves nobody else with it")

    @field_validator("formats", mode="before")
    @classmethod
    def _split_formats(cls, value: Any) -> Any:
        if isinstance(value, str):
            value = json.loads(value) if value.lstrip().startswith("[") else value.split(",")
        if isinstance(value, list | tuple):
            return tuple(dict.fromkeys(item.strip() if isinstance(item, str) else item for item in value))
        return value

    @field_validator("server_url", mode="before")
    @classmethod
    def _join_addresses(cls, value: Any) -> Any:
        if isinstance(value, str) and value.lstrip().startswith("["):
            value = json.loads(value)
        if isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
            value = ",".join(value)
        if isinstance(value, str) and len(split_addresses(value)) > MAX_NAMED:
            raise ValueError(f"names more than {MAX_NAMED} servers")
        return value

    @field_validator("server_url", "lang", mode="after")
    @classmethod
    def _empty_is_none(cls, value: str | None) -> str | None:
        return value or None

    @field_validator("server_url", "lang", "backend", mode="after")
    @classmethod
    def _storable(cls, value: str | None) -> str | None:
        # JSON can name half a character (a lone surrogate), which no file and no database can hold.
        try:
            (value or "").encode()
        except UnicodeEncodeError:
            raise ValueError("is not valid Unicode text") from None
        return value

    @field_validator("end_page_id", mode="after")
    @classmethod
    def _open_end(cls, value: int | None) -> int | None:
        return None if value is not None and value >= _LAST_PAGE_WORD else value

    @model_validator(mode="after")
    def _check(self) -> Self:
        tier_of_backend(self.backend)
        if self.end_page_id is not None and self.end_page_id < self.start_page_id:
            raise ValueError(f"end_page_id ({self.end_page_id}) lies before start_page_id ({self.start_page_id})")
        return self

    @property
    def wanted_tier(self) -> Tier:
        """The tier asked for: `tier` where given, else what `backend` maps to."""
        return self.tier if self.tier is not Tier.AUTO else tier_of_backend(self.backend)

    def page_range(self, pages: int) -> tuple[int, int]:
        """Return (first, last), counted from 0 and inclusive, of a document of `pages` pages.

        A last page beyond the end means the end, as in MinerU 2.x and 3.x.

        Raises:
            InvalidPageRange: the first page lies beyond the end.
        """
        from docfleet.errors import InvalidPageRange

        if self.start_page_id >= pages:
            raise InvalidPageRange(
                f"start_page_id is {self.start_page_id} (counted from 0), but the document has {pages} page(s)."
            )
        last = pages - 1 if self.end_page_id is None else min(self.end_page_id, pages - 1)
        return self.start_page_id, last


def parse_options(raw: Mapping[str, Any] | None) -> ParseOptions:
    """Validate what came from outside: JSON values, or form fields where everything is text.

    Empty text is an option that was not given: forms send every field, filled in or not.

    Raises:
        InvalidOption: an unknown name or an unusable value; the message names each.
    """
    try:
        given = {k: v for k, v in (raw or {}).items() if v != "" or k not in ParseOptions.model_fields}
        return ParseOptions.model_validate(given)
    except ValidationError as exc:
        raise InvalidOption(_explain(exc)) from None
    except ValueError as exc:
        raise InvalidOption(f"The options cannot be read: {exc}.") from None


def _explain(exc: ValidationError) -> str:
    parts = []
    for item in exc.errors(include_url=False, include_context=False):
        name = ".".join(str(step) for step in item["loc"])
        if not name:
            # What is wrong between several options names them itself.
            parts.append(item["msg"].removeprefix("Value error, "))
        elif item["type"] == "too_short":
            # Said too of a list whose only item is wrong, which is told already.
            parts += [] if parts else [f"option {name!r}: name at least one"]
        elif item["type"] == "extra_forbidden":
            parts.append(f"option {name!r} is not known (known: {', '.join(ParseOptions.model_fields)})")
        else:
            parts.append(f"option {name!r}: {item['msg'].removeprefix('Value error, ')}")
    return "; ".join(parts) + "."
