"""The process in which documents are looked at first. Started by `docfleet.intake.inspector`; not for people.

One JSON object a line on standard input, {"path", "filename"}; one a line on standard output, {"suffix", "pages"} or
{"error", "retire"}. Ends at the end of its input, which is when its parent ends, whatever ended that.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any, BinaryIO

from docfleet.documents.inspection import inspect
from docfleet.errors import BrokenDocument, DocfleetError, HostileDocument

#: Seconds after the parent's time limit at which this process ends itself, should the parent be gone.
_GRACE = 5.0


def main() -> None:
    """Answer requests. Arguments: bytes of memory this process may use, seconds a request may take."""
    memory, timeout = int(sys.argv[1]), float(sys.argv[2])
    _limit_itself(memory)
    # From here on, what goes wrong is said in answers: native libraries print whatever a document makes them print.
    answers = _silence_libraries()
    _send(answers, {"ready": True})
    for line in sys.stdin.buffer:
        # The default action ends the process even inside a decoder that never returns.
        signal.setitimer(signal.ITIMER_REAL, timeout + _GRACE)
        answer = _answer(json.loads(line))
        signal.setitimer(signal.ITIMER_REAL, 0)
        _send(answers, answer)
        if answer.get("retire"):
            return


def _answer(request: dict[str, str]) -> dict[str, Any]:
    try:
        found = inspect(Path(request["path"]), request["filename"])
    except DocfleetError as exc:
        return {"error": exc.record()}
    except MemoryError:
        # What a library leaves behind in this case is anybody's guess: the next request gets a fresh process.
        greedy = HostileDocument("Reading the file takes more memory than a document may. Send it in parts.")
        return {"error": greedy.record(), "retire": True}
    except Exception as exc:
        cause = f"{type(exc).__name__}: {exc}"
        broken = BrokenDocument(
            "The file is damaged in a way that its reader did not expect. Save it anew and send it."
        )
        return {"error": broken.record(), "unforeseen": cause[:500]}
    return {"suffix": found.suffix, "pages": found.pages}


def _limit_itself(memory: int) -> None:
    # Ctrl-C reaches every process of a terminal; this one ends with its parent.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    for limit, value in ((resource.RLIMIT_AS, memory), (resource.RLIMIT_CORE, 0)):
        # Some systems know a limit and cannot set it (macOS: RLIMIT_AS).
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(limit, (value, value))


def _silence_libraries() -> BinaryIO:
    """Keep standard output, as the answers' way, to ourselves; nothing else goes out."""
    answers = os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    return answers


def _send(answers: BinaryIO, answer: dict[str, Any]) -> None:
    answers.write(json.dumps(answer).encode() + b"\n")
    answers.flush()


if __name__ == "__main__":
    main()
