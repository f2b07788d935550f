"""LitServe's worker loop, replaced: workers claim shards from the store instead of waiting for LitServe's queue.

LitServe's queue loses messages when an idle worker dies and copies every body through three processes; nothing goes
through it here. Extension point: `LitLoop.__call__`, run in the worker process after `LitAPI.setup`.
"""

from __future__ import annotations

from typing import Any, NoReturn, Protocol

from litserve.loops.base import LitLoop
from litserve.specs.base import LitSpec

from docfleet.process.groups import leave_with_children
from docfleet.worker.rounds import Rounds, Steps


class WorkerApi(Steps, Protocol):
    """What the loop needs of the LitAPI: its steps, and the rounds that its `setup` prepared."""

    @property
    def rounds(self) -> Rounds:
        """The rounds of this worker."""
        ...


class ClaimLoop(LitLoop):  # type: ignore[misc]
    """Serves until the process is to be replaced."""

    def __call__(self, lit_api: WorkerApi, device: str, worker_id: int, *_: Any) -> NoReturn:
        """Never returns: LitServe starts another worker in the place of one that is gone."""
        lit_api.rounds.serve(lit_api)
        leave_with_children()


class DoorSpec(LitSpec):  # type: ignore[misc]
    """Owns the path `/predict` towards LitServe, and offers no endpoint there: the doors are routes of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.api_path = "/predict"

    def __getstate__(self) -> dict[str, Any]:
        # Live queues and buffers do not pickle, and no worker needs them.
        return {"api_path": self.api_path, "_endpoints": [], "_server": None}

    def decode_request(self, request: Any, context_kwargs: Any = None) -> Any:
        """Pass on: the LitAPI decodes."""
        return request

    def encode_response(self, output: Any, context_kwargs: Any = None) -> Any:
        """Pass on: the LitAPI encodes."""
        return output
