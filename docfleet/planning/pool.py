"""The pool of VLM servers, whose keys are for the router alone."""

from __future__ import annotations

import os
from dataclasses import replace

from loguru import logger

from docfleet import aliases
from docfleet.files import DataFolder
from docfleet.settings import Settings
from docfleet.vlm.changes import Changes, changed
from docfleet.vlm.planning import OwnServers, PoolPlan, lasting, named_servers, plan_pool
from docfleet.vlm.records import Member

#: Workers and their children inherit the environment; none of them shall find these there.
_NOT_INHERITED = ("DOCFLEET_VLM_API_KEYS", *aliases.CLIENT_VARIABLES)


def take_pool(settings: Settings, folder: DataFolder, own: OwnServers | None = None) -> PoolPlan | None:
    """Return the pool, and take its variables out of this process's environment. None: there are no VLM servers.

    Servers that were added while an earlier run worked are members, those that were drained are not.

    Args:
        settings: name servers.
        folder: holds what was changed while earlier runs worked.
        own: servers that this machine runs itself.

    Raises:
        ConfigurationError: see `docfleet.vlm.planning.plan_pool`.
    """
    pool = plan_pool(settings, own)
    if pool is not None:
        for variable in _NOT_INHERITED:
            os.environ.pop(variable, None)
        members = changed(pool.members, Changes(folder.vlm_changes).read(pool.lasting))
        for member in set(pool.members) - set(members):
            logger.info("VLM server {} was drained and stays out; POST /vlm/endpoints brings it back", member.url)
        pool = replace(pool, members=members, changes=folder.vlm_changes)
    return pool


def members_now(settings: Settings, folder: DataFolder, own: OwnServers | None) -> tuple[Member, ...]:
    """Return who would be in the pool, as `take_pool` does, and take and open nothing.

    Raises:
        ConfigurationError: see `docfleet.vlm.planning.plan_pool`.
    """
    members, allowed = named_servers(settings, own)
    return changed(members, Changes(folder.vlm_changes).read(lasting(allowed, own)))
