"""Callers who leave: what is stopped with them."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from anyio.to_thread import run_sync
from loguru import logger

from docfleet.errors import Cancelled
from docfleet.files import remove_tree
from docfleet.web.doors import Doors

_ABANDONED = Cancelled("The job was cancelled: its caller left before it was done.").record()


async def abandon(doors: Doors, job_ids: Iterable[str]) -> None:
    """Stop jobs whose caller left, unless others wait for them or know of them; then whatever went on only for them."""
    for job_id in job_ids:
        await _stop(doors, job_id)
    await stop_unwanted(doors)


async def stop_unwanted(doors: Doors) -> None:
    """Stop jobs whose callers left, and which went on for others who have left by now, too."""
    for job_id in await run_sync(doors.store.unwanted):
        await _stop(doors, job_id)


async def _stop(doors: Doors, job_id: str) -> None:
    if doors.watch.waited(job_id) or doors.feed.followed(job_id):
        return
    if await run_sync(partial(doors.store.cancel, job_id, _ABANDONED, even_kept=False)):
        await run_sync(partial(remove_tree, doors.folder.job(job_id)))
        logger.info("job {} cancelled: its caller left", job_id)
