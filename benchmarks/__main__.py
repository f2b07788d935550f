"""Run the benchmarks one after the other on what the project ships: `python -m benchmarks [NAME...]`, or `make bench`.

One of them takes options of its own: `python -m benchmarks crowd --requests 100 --megabytes 5 --obey`, or `--help`.
"""

from __future__ import annotations

import subprocess
import sys

#: Name and arguments. The documents are the samples; for figures worth quoting give a benchmark real ones.
SUITE: dict[str, list[str]] = {
    "idle": [],
    "store_claims": [],
    "waiting": [],
    "cache": [],
    "cancel": [],
    "throughput": ["samples/report.pdf", "samples/minutes.docx", "--copies", "40"],
    "ocr_quality": ["--pages", "2"],
    "scaling": ["--scan-pages", "0"],
    "crowd": ["--requests", "10", "50", "100", "200", "500"],
    "short_beside_long": [],
    "merge": ["--pages", "30", "90"],
    "soak": ["--number", "100"],
    "equality": [],
    "fast_shards": [],
    "vlm_pool": [],
    "cpu_scaling": [],
    "bad_pages": [],
    "metrics": [],
}


def main() -> int:
    given = sys.argv[1:]
    first = next((place for place, word in enumerate(given) if word.startswith("-")), len(given))
    names, options = given[:first] or list(SUITE), given[first:]
    if options and len(given[:first]) != 1:
        print("options belong to one benchmark: python -m benchmarks NAME --option ...", file=sys.stderr)
        return 2
    unknown = [name for name in names if name not in SUITE]
    if unknown:
        print(f"no such benchmark: {', '.join(unknown)} (there are {', '.join(SUITE)})", file=sys.stderr)
        return 2
    failed = 0
    for name in names:
        print(f"\n== {name}", flush=True)
        command = [sys.executable, "-m", f"benchmarks.{name}", *(options or SUITE[name])]
        failed += subprocess.run(command, check=False).returncode != 0
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
