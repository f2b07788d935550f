"""Ask model hubs whether they answer: a program of its own (`python -P hubs.py`), and the only one that knows requests.

Orders come on standard input as JSON: {"hubs": [[name, url], ...] in order of preference, "timeout": seconds}. Each
answer is a line of JSON on standard output: {"name", "reachable", "detail", "seconds"}. The program ends as soon as the
preference is decided, and at the latest after the time-out: a time-out of requests counts from one packet to the next,
and a server that sends a byte now and then, or a name server that is silent, would keep it for minutes.
It imports nothing of Docfleet's, so that it starts fast.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import time
from typing import Any

import requests

_MAX_REDIRECTS = 5

#: What to call a failure; the first kind that fits.
_KINDS: tuple[tuple[type[Exception], str], ...] = (
    (requests.exceptions.ProxyError, "the proxy failed"),
    (requests.exceptions.SSLError, "no trusted TLS connection"),
    (requests.exceptions.Timeout, "no answer in time"),
    (requests.exceptions.TooManyRedirects, f"more than {_MAX_REDIRECTS} redirects"),
    (requests.exceptions.ConnectionError, "no connection"),
)


def head(url: str, timeout: float) -> tuple[bool, str]:
    """Send a HEAD request, follow redirects, and return (reachable, what happened in one line)."""
    try:
        with requests.Session() as session:
            session.max_redirects = _MAX_REDIRECTS
            response = session.head(url, timeout=timeout, allow_redirects=True)
    except Exception as exc:  # whatever a foreign address, proxy or server makes of it, the next hub is asked
        return False, _explain(exc)
    return response.status_code < 400, f"status {response.status_code}"


def _explain(exc: Exception) -> str:
    for kind, words in _KINDS:
        if isinstance(exc, kind):
            inner = _innermost(exc)
            # Messages of requests itself repeat the address with all that is in it, credentials included.
            told = "" if isinstance(inner, requests.exceptions.RequestException) else " ".join(str(inner).split())
            return f"{words}: {told[:160]}" if told else words
    return f"its address or answer cannot be used ({type(exc).__name__})"


def _innermost(exc: BaseException) -> BaseException:
    """Return the error that the system or the peer gave, from within the wrappers of two libraries."""
    for _ in range(10):
        inner = [getattr(exc, "reason", None), *exc.args, exc.__cause__, exc.__context__]
        following = next((item for item in inner if isinstance(item, BaseException)), None)
        if following is None:
            break
        exc = following
    return exc


def ask(hubs: list[tuple[str, str]], timeout: float) -> None:
    """Ask all hubs at once and print each answer, until the first in order of preference is known."""
    started = time.monotonic()
    answers: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()

    def work(name: str, url: str) -> None:
        reachable, detail = head(url, timeout)
        seconds = round(time.monotonic() - started, 3)
        answers.put({"name": name, "reachable": reachable, "detail": detail, "seconds": seconds})

    for name, url in hubs:
        threading.Thread(target=work, args=(name, url), daemon=True).start()
    waiting = [name for name, _ in hubs]
    reachable: set[str] = set()
    while waiting and not any(name in reachable for name in _up_to(hubs, waiting[0])):
        try:
            answer = answers.get(timeout=max(0.0, started + timeout - time.monotonic()))
        except queue.Empty:
            for name in waiting:
                _say(
                    {"name": name, "reachable": False, "detail": f"no answer within {timeout:g} s", "seconds": timeout}
                )
            return
        _say(answer)
        waiting.remove(answer["name"])
        if answer["reachable"]:
            reachable.add(answer["name"])


def _up_to(hubs: list[tuple[str, str]], name: str) -> list[str]:
    """Return the names that are preferred to `name`."""
    names = [known for known, _ in hubs]
    return names[: names.index(name)]


def _say(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    orders = json.load(sys.stdin)
    ask([(name, url) for name, url in orders["hubs"]], orders["timeout"])
    # At once: no finalisation beside threads that still wait for a silent hub.
    os._exit(0)
