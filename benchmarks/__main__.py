"""Run the benchmarks one after the other on what the project ships: `python -m benchmarks [NAME...]`, or `make bench`.

Each also runs by itself, with options: `python -m benchmarks.throughput --help`.
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
    "metrics": [],
}


def main() -> int:
    names = sys.argv[1:] or list(SUITE)
    unknown = [name for name in names if name not in SUITE]
    if unknown:
        print(f"no such benchmark: {', '.join(unknown)} (there are {', '.join(SUITE)})", file=sys.stderr)
        return 2
    failed = 0
    for name in names:
        print(f"\n== {name}", flush=True)
        failed += (
            subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *SUITE[name]], check=False).returncode != 0
        )
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
