"""Load MinerU's models when the worker starts, and say what is to blame where one does not load: a file, or memory."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from docfleet.engine.memory import is_out_of_memory
from docfleet.engine.mineru.failures import short_cause
from docfleet.errors import DocfleetError, OutOfDeviceMemory, TierUnavailable

if TYPE_CHECKING:
    from mineru.model.download import ModelRepo

#: Models that MinerU itself would load with the first page that needs them: a damaged file would be found then, in the
#: middle of somebody's document, and each first formula or table would take seconds more.
_LATE = (
    "mfr_model",
    "table_cls_model",
    "wired_table_model",
    "wireless_table_model",
    "table_orientation_cls_model",
    "seal_model",
)


def load_small_models() -> None:
    """Load every model of tier basic. All files are here: what is missing is fetched by a process for all workers.

    Raises:
        TierUnavailable: a file is damaged; the message names it.
        OutOfDeviceMemory: too little memory is free for them now.
    """
    from mineru.model.registry import small_model_repo
    from mineru.model.runtime.hybrid import HybridLocalModelContextSingleton

    repo = small_model_repo()
    with _naming_shortage("MinerU's models"), _blaming(repo):
        context = HybridLocalModelContextSingleton().get_model()
        for name in _LATE:
            getattr(context, name)


def load_vlm() -> None:
    """Load the vision-language model.

    Raises:
        OutOfDeviceMemory: too little memory is free for it now.
    """
    from mineru.model.vlm.client import get_vlm_predictor

    with _naming_shortage("the vision-language model"):
        get_vlm_predictor()


def unload_small_models() -> None:
    """Forget the models of tier basic that did load: another worker of the device may have room for all of them."""
    from mineru.model.runtime.hybrid import AtomModelSingleton, HybridLocalModelContextSingleton

    # MinerU has no call for it.
    HybridLocalModelContextSingleton._models.clear()
    AtomModelSingleton._models.clear()


def give_back_memory(device: str) -> None:
    """Return to the device what a failed load left. Call when its error is gone: the traceback holds models."""
    from mineru.model.runtime.memory import clean_memory

    # Before the library empties its cache: only what is collected is in there.
    gc.collect()
    clean_memory(device)


@contextmanager
def _naming_shortage(what: str) -> Iterator[None]:
    try:
        yield
    except (Exception, SystemExit) as exc:
        if not is_out_of_memory(exc):
            raise
        raise OutOfDeviceMemory(
            f"Too little memory is free for {what} ({short_cause(exc)}). End what else holds it, or run fewer workers "
            "on the device; it is tried again by itself."
        ) from exc


@contextmanager
def _blaming(repo: ModelRepo) -> Iterator[None]:
    try:
        yield
    except (DocfleetError, ImportError):
        raise
    except (Exception, SystemExit) as exc:
        if is_out_of_memory(exc):
            # Good weights; whoever removed them would fetch gigabytes for nothing.
            raise
        # ONNX Runtime names the file it reads; MinerU calls exit() where a model does not initialise.
        file = next((path for path in repo.paths.values() if path in str(exc)), None)
        named = f"{repo.name}/{file}" if file else f"a file of {repo.name}"
        raise TierUnavailable(
            f"The weights do not load ({short_cause(exc)}): {named} is damaged, or made for another version of MinerU. "
            "Remove it, fetch it anew (`python server.py --prefetch`), and restart the server."
        ) from exc
