"""The pool of VLM servers, whose keys are for the router alone."""

from __future__ import annotations

import os

from docfleet import aliases
from docfleet.settings import Settings
from docfleet.vlm.planning import OwnServers, PoolPlan, plan_pool

#: Workers and their children inherit the environment; none of them shall find these there.
_NOT_INHERITED = ("DOCFLEET_VLM_API_KEYS", *aliases.CLIENT_VARIABLES)


def take_pool(settings: Settings, own: OwnServers | None = None) -> PoolPlan | None:
    """Return the pool, and take its variables out of this process's environment. None: there are no VLM servers.

    Args:
        settings: name servers.
        own: servers that this machine runs itself.

    Raises:
        ConfigurationError: see `docfleet.vlm.planning.plan_pool`.
    """
    pool = plan_pool(settings, own)
    if pool is not None:
        for variable in _NOT_INHERITED:
            os.environ.pop(variable, None)
    return pool
