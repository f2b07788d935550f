"""What the main process decides for all others, before it starts any of them.

Called with what `server.py` found out (machine, model source); nothing here looks at devices or hubs.
"""

from __future__ import annotations

from docfleet.planning.fleet import Fleet, announce, assemble_fleet
from docfleet.planning.foresight import Foresight, check_start, foresee
from docfleet.planning.pool import take_pool
from docfleet.planning.weights import fetch_weights, lacking

__all__ = [
    "Fleet",
    "Foresight",
    "announce",
    "assemble_fleet",
    "check_start",
    "fetch_weights",
    "foresee",
    "lacking",
    "take_pool",
]
