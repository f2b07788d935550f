"""Logging of every process: loguru to standard error, one line a fact; other libraries' loggers led into it."""

from __future__ import annotations

import logging
import sys

from loguru import logger

_FORMAT = "{time:YYYY-MM-DD HH:mm:ss.SSS} {level:<7} {extra[process]:<9} {message}"

#: Libraries that say at these levels what only their authors want to know: standard logging, and loguru.
_TALKATIVE = {
    **dict.fromkeys(
        ("uvicorn", "litserve", "httpx", "httpx2", "httpcore", "rapidocr", "RapidOCR", "urllib3"), logging.WARNING
    ),
    # Their warnings quote bytes of the document.
    **dict.fromkeys(("pypdf", "pypdfium2"), logging.ERROR),
}
_TALKATIVE_LOGURU = ("mineru", "docvortex")


class _IntoLoguru(logging.Handler):
    """Hands records of the standard library's logging on."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            level: str | int = logger.level(record.levelname).name
        except ValueError:
            level = record.levelno
        logger.opt(exception=record.exc_info, depth=6).log(level, "{}", record.getMessage())


def configure(level: str, process: str) -> None:
    """Set logging up in the calling process. Each process does this for itself; a second call replaces the first.

    Args:
        level: debug | info | warning | error.
        process: short name shown on every line ("main", "api", "worker-0").
    """
    logger.remove()
    logger.configure(extra={"process": process})
    # Values of local variables in tracebacks would show documents and keys.
    quiet: dict[str | None, str | int | bool] = {"": level.upper()}
    if level != "debug":
        quiet |= dict.fromkeys(_TALKATIVE_LOGURU, "WARNING")
    logger.add(sys.stderr, level=level.upper(), format=_FORMAT, filter=quiet, backtrace=False, diagnose=False)
    logging.basicConfig(handlers=[_IntoLoguru()], level=logging.INFO, force=True)
    for name, bound in _TALKATIVE.items():
        logging.getLogger(name).setLevel(logging.DEBUG if level == "debug" else bound)
