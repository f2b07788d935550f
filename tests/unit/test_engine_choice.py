from __future__ import annotations

from typing import ClassVar

import pytest

from docfleet.engine.choice import choose, chosen
from docfleet.engine.registry import build_engines, check_names
from docfleet.errors import EngineMissing, ReaderUnavailable, TierUnavailable
from docfleet.options import ParseOptions, Tier
from tests.engines import FaultyEngine


class Able(FaultyEngine):
    """Says which tiers it can run."""

    tiers: ClassVar[set[Tier]] = set()
    suffixes: ClassVar[set[str]] = {"pdf", "png", "docx"}

    def missing(self, tier: Tier, suffix: str, options: ParseOptions) -> str | None:
        return None if tier in self.tiers and suffix in self.suffixes else f"no {tier} here, get it there."


class Models(Able):
    name = "models"
    tiers: ClassVar[set[Tier]] = {Tier.FLASH, Tier.BASIC}


class Small(Able):
    name = "small"
    tiers: ClassVar[set[Tier]] = {Tier.FLASH}
    suffixes: ClassVar[set[str]] = {"pdf", "png"}


def test_auto_takes_the_best_tier_that_can_run() -> None:
    choice = choose([Small(), Models()], "pdf", ParseOptions())
    assert (choice.engine.name, choice.tier) == ("models", Tier.BASIC)
    assert choose([Small()], "pdf", ParseOptions()).tier is Tier.FLASH


def test_within_a_tier_the_first_engine_that_reads_the_type_is_taken() -> None:
    options = ParseOptions(tier=Tier.FLASH)
    assert choose([Small(), Models()], "png", options).engine.name == "small"
    assert choose([Small(), Models()], "docx", options).engine.name == "models"


def test_a_tier_asked_for_is_never_replaced() -> None:
    with pytest.raises(TierUnavailable, match="no advanced here, get it there"):
        choose([Small(), Models()], "pdf", ParseOptions(backend="vlm-transformers"))


def test_office_files_are_read_at_flash_and_the_caller_is_told() -> None:
    choice = choose([Models()], "docx", ParseOptions(tier=Tier.BASIC))
    assert choice.tier is Tier.FLASH
    assert "basic was not used" in choice.warnings[0]
    assert choose([Models()], "docx", ParseOptions()).warnings == ()


def test_a_document_that_was_cut_is_read_on_by_the_same_engine_at_the_same_tier() -> None:
    begun = choose([Small()], "pdf", ParseOptions())
    assert begun.reader == "small/flash"
    assert choose([Models(), Small()], "pdf", ParseOptions()).reader == "models/basic"
    went_on = chosen([Models(), Small()], "pdf", ParseOptions(), begun.reader)
    assert (went_on.engine.name, went_on.tier) == ("small", Tier.FLASH)
    assert "basic was not used" in chosen([Models()], "docx", ParseOptions(tier=Tier.BASIC), "models/flash").warnings[0]


@pytest.mark.parametrize(
    ("reader", "reason"), [("models/basic", "models is not here"), ("small/basic", "no basic here")]
)
def test_who_began_a_document_and_cannot_go_on_is_named(reader: str, reason: str) -> None:
    with pytest.raises(ReaderUnavailable, match=f"{reason}.*Send the document again"):
        chosen([Small()], "pdf", ParseOptions(), reader)


def test_engines_are_found_by_name_and_by_module_and_class() -> None:
    engines = build_engines(["embedded", "mineru", "tests.engines:FaultyEngine"])
    assert [engine.name for engine in engines] == ["embedded", "mineru", "faulty"]


@pytest.mark.parametrize("name", ["nothing", "no.module:Engine", "tests.engines:Missing"])
def test_an_engine_that_is_not_there_is_named(name: str) -> None:
    with pytest.raises(EngineMissing, match=name.split(":")[0]):
        build_engines([name])


def test_a_mistake_in_a_name_is_told_without_importing_any_engine() -> None:
    check_names(["embedded", "mineru", "not.imported:Engine"])
    with pytest.raises(EngineMissing, match="embedded, mineru"):
        check_names(["embedded", "minru"])
    with pytest.raises(EngineMissing, match="No engine is named"):
        check_names([])
