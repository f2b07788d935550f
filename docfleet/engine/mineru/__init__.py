"""The one sub-package that knows MinerU (and DocVortex, the native library beneath it).

Importing it costs nothing: MinerU reads its settings once, when it is first imported, so a worker sets the variables
that `tuning()` names, and those of its device and model source, before it calls `MinerUEngine.load`.

`documents` is what other engines may build on: parse a PDF at flash, write the result files.
"""

from __future__ import annotations

from docfleet.engine.mineru.engine import MinerUEngine
from docfleet.engine.mineru.environment import tuning

__all__ = ["MinerUEngine", "tuning"]
