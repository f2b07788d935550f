"""Is what comes out of shards what comes out of one piece, byte for byte?

    python -m benchmarks.equality [DOCUMENT...] [--only NAME,NAME] [--processes 2]

Each document of the tests' set, each real document at hand and each one named, read uncut, in shards of one page and
of three, and in the shards that the server cuts for 2, 4 and 8 workers, by processes of their own in an order of their
own; digital ones also with MinerU called directly, and in both engines. Exit status 1 if a byte differs.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from tests.conftest import DOCUMENTS
from tests.equality import Case, Files, cuts, direct, for_workers, in_shards, of_size, pool, whole
from tests.equality_set import SET, make

MODEL = "tests.reading_engine:ReadingEngine"


def compared(executor: ProcessPoolExecutor, case: Case, work: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield each way of reading the document, and the files that differ."""
    expected = whole(executor, case, work / "whole").result()
    found = cuts(executor, case)
    if found is not None:
        last = case.pages - 1
        ways = {f"{size} page(s)": of_size(found, 0, last, size) for size in (1, 3)}
        ways |= {f"{number} workers": for_workers(found, 0, number) for number in (2, 4, 8)}
        for number, (way, ranges) in enumerate(ways.items()):
            if len(ranges) > 1:
                made = in_shards(executor, case, ranges, found.decisions, work / f"cut-{number}")
                yield f"{way} ({len(ranges)} shards)", differing(made, expected)
    if case.engine != MODEL and (found is None or not any(found.costs)):
        told = direct(executor, case.source).result()
        yield "MinerU itself", differing(told, {file: expected.get(file, b"") for file in told})


def differing(made: Files, expected: Files) -> list[str]:
    """Return the names of files that are not the same in both."""
    return sorted(name for name in made.keys() | expected.keys() if made.get(name) != expected.get(name))


def main() -> int:
    """Print a line for each document and way."""
    parser = argparse.ArgumentParser()
    parser.add_argument("documents", nargs="*", type=Path)
    parser.add_argument("--only", default="", help="documents of the set, by name")
    parser.add_argument("--processes", type=int, default=2)
    args = parser.parse_args()
    names = [name for name in SET if not args.only or name in args.only.split(",")]
    failed = ways = 0
    with tempfile.TemporaryDirectory() as name, pool(args.processes) as executor:
        folder = Path(name)
        real = [] if args.only else sorted(DOCUMENTS.glob("*.pdf"))
        sources = [make(name, folder) for name in names] + real + args.documents
        for number, source in enumerate(sources):
            digital = source.stem not in SET or not SET[source.stem].scanned
            for engine in ("embedded", "mineru", MODEL) if digital and "scan" not in source.stem else ("embedded",):
                case = Case(source, engine=engine)
                for way, names_differing in compared(executor, case, folder / f"{number}-{engine.rpartition(':')[2]}"):
                    ways += 1
                    failed += bool(names_differing)
                    verdict = f"DIFFERS: {', '.join(names_differing)}" if names_differing else "equal"
                    shown = engine.rpartition(":")[2]
                    print(f"{source.stem:22} {case.pages:4d} pages  {shown:14} {way:24} {verdict}", flush=True)
    print(f"\n{ways} comparisons of {len(sources)} documents, {failed} differ")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
