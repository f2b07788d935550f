"""Load MinerU's models when the worker starts, and say which file is to blame where one does not load."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from docfleet.engine.mineru.failures import short_cause
from docfleet.errors import DocfleetError, TierUnavailable

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
    """
    from mineru.model.registry import small_model_repo
    from mineru.model.runtime.hybrid import HybridLocalModelContextSingleton

    repo = small_model_repo()
    with _blaming(repo):
        context = HybridLocalModelContextSingleton().get_model()
        for name in _LATE:
            getattr(context, name)


def load_vlm() -> None:
    """Load the vision-language model."""
    from mineru.model.vlm.client import get_vlm_predictor

    get_vlm_predictor()


@contextmanager
def _blaming(repo: ModelRepo) -> Iterator[None]:
    try:
        yield
    except (DocfleetError, ImportError):
        raise
    except (Exception, SystemExit) as exc:
        # ONNX Runtime names the file it reads; MinerU calls exit() where a model does not initialise.
        file = next((path for path in repo.paths.values() if path in str(exc)), None)
        named = f"{repo.name}/{file}" if file else f"a file of {repo.name}"
        raise TierUnavailable(
            f"The weights do not load ({short_cause(exc)}): {named} is damaged, or made for another version of MinerU. "
            "Remove it, fetch it anew (`python server.py --prefetch`), and restart the server."
        ) from exc
