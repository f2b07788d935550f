"""Shared fixtures. A test that needs a part that is missing is left out, and says so; under CI that is a failure."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
#: Real documents kept outside the project; a checkout without them tests on documents of its own making.
DOCUMENTS = Path(os.environ.get("DOCFLEET_TEST_DOCUMENTS", ROOT.parent / "shared" / "documents"))

# MinerU reads its environment at its first import, whichever test comes first: never the user's own.
import tests.mineru_support  # noqa: E402, F401

# How fast examples are made tells of the machine, not of the code.
settings.register_profile("any-machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any-machine")

#: Parts that a test may need, and whether they are here.
PARTS = {
    "documents": DOCUMENTS.is_dir,
    # Prometheus' checker of metrics; in Debian's package prometheus.
    "promtool": lambda: shutil.which("promtool") is not None,
    # A process namespace of its own, as a container has: only root may make one.
    "namespaces": lambda: shutil.which("unshare") is not None and os.geteuid() == 0,
}
#: Their absence under CI is a failure, not a reason to skip.
CI_HAS = frozenset({"namespaces", "promtool"})


def pytest_runtest_setup(item: pytest.Item) -> None:
    for mark in item.iter_markers("needs"):
        (part,) = mark.args
        if PARTS[part]():
            continue
        message = f"left out: {part} is not here"
        if os.environ.get("CI") and part in CI_HAS:
            pytest.fail(message)
        pytest.skip(message)


@pytest.fixture
def documents() -> Path:
    """The folder of real documents; use together with `@pytest.mark.needs("documents")`."""
    return DOCUMENTS
