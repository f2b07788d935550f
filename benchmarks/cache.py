"""What a cached answer takes: `python -m benchmarks.cache [DOCUMENT] [--requests 300]`.

The same document is sent again and again over one connection; beside it, the same with `cache=false` against an engine
that does nothing (all of the road but the parse), so that the price of the road itself is seen.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import requests

from tests.serving import FAULTY, blank_pdf, running


def times(url: str, content: bytes, number: int, **options: str) -> list[float]:
    """Return the seconds of each request from its first byte sent to the last one received, sorted.

    Over one connection of the standard library: a richer client takes a millisecond for itself.
    """
    address = urlsplit(url)
    path = "/predict" + (f"?{urlencode(options)}" if options else "")
    found = []
    with closing(HTTPConnection(str(address.hostname), address.port, timeout=60)) as connection:
        for _ in range(number):
            started = time.perf_counter()
            connection.request("POST", path, content, {"Content-Type": "application/pdf"})
            response = connection.getresponse()
            body = response.read()
            found.append(time.perf_counter() - started)
            assert response.status == 200, body
            assert json.loads(body)["cached"] is ("cache" not in options)
    return sorted(found)


def show(name: str, seconds: list[float]) -> None:
    p50, p95 = statistics.median(seconds), seconds[int(len(seconds) * 0.95)]
    print(f"{name:<32} p50 {p50 * 1e3:6.2f} ms   p95 {p95 * 1e3:6.2f} ms   min {seconds[0] * 1e3:6.2f} ms")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("document", nargs="?", help="a PDF; by default ten empty pages")
    parser.add_argument("--requests", type=int, default=300)
    args = parser.parse_args()
    content = Path(args.document).read_bytes() if args.document else blank_pdf(10)
    engines = () if args.document else ("--engines", FAULTY)
    options = ("--workers", "1", "--reuse-results", "--log-level", "warning", *engines)
    with tempfile.TemporaryDirectory() as folder, running(Path(folder) / "data", *options) as serving:
        serving.predict(content, "document.pdf").raise_for_status()
        print(f"{len(content)} bytes, {args.requests} requests, one after the other")
        show("cached", times(serving.url, content, args.requests))
        if not args.document:
            show("cache=false, engine does nothing", times(serving.url, content, args.requests // 3, cache="false"))
        probe = sorted(seconds_of(serving.url) for _ in range(args.requests))
        show("GET /livez", probe)


def seconds_of(url: str) -> float:
    """Return what the smallest request takes, with a connection of its own."""
    started = time.perf_counter()
    requests.get(f"{url}/livez", timeout=10).raise_for_status()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
