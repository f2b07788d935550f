"""Where models come from, and how that was decided."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any


class Source(StrEnum):
    """Where models come from, in order of preference."""

    HUGGINGFACE = "huggingface"
    MODELSCOPE = "modelscope"
    LOCAL = "local"
    #: No models of MinerU's: the weights inside the rapidocr wheel.
    EMBEDDED = "embedded"


@dataclass(frozen=True, kw_only=True)
class HubProbe:
    """One hub's answer."""

    source: Source
    #: Address asked, without credentials and query.
    url: str
    reachable: bool
    #: What happened, in one line.
    detail: str
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "source": self.source.value,
            "url": self.url,
            "reachable": self.reachable,
            "detail": self.detail,
            "seconds": self.seconds,
        }


@dataclass(frozen=True, kw_only=True)
class ModelSource:
    """The decision, and what led to it."""

    name: Source
    reason: str
    #: Folder that holds the weights or takes those that are fetched.
    models_dir: Path
    #: Folder that MinerU takes for its home, so that it writes into nobody else's.
    home: Path
    probes: tuple[HubProbe, ...] = ()

    @property
    def offline(self) -> bool:
        """Whether no hub may be contacted."""
        return self.name in (Source.LOCAL, Source.EMBEDDED)

    @property
    def unreached(self) -> bool:
        """Whether no hub is used because none answered, though one would have been welcome."""
        return self.offline and bool(self.probes)

    @property
    def hubs(self) -> tuple[Source, ...]:
        """The hubs that may be used, in order: the one decided for, and the next one unless the user chose."""
        hubs = (Source.HUGGINGFACE, Source.MODELSCOPE)
        if self.name not in hubs:
            return ()
        return hubs[hubs.index(self.name) :] if self.probes else (self.name,)

    def environment(self) -> dict[str, str]:
        """Return what every worker sets before it imports MinerU."""
        values = {
            # MinerU knows no "embedded"; "local" is its word for "fetch nothing". Never "auto": with that it asks
            # the hubs in each worker, and writes its finding into a configuration file.
            "MINERU_MODEL_SOURCE": Source.LOCAL.value if self.offline else self.name.value,
            "MINERU_MODEL_BASE_DIR": str(self.models_dir),
            "MINERU_HOME": str(self.home),
        }
        return values | ({"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"} if self.offline else {})

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "name": self.name.value,
            "reason": self.reason,
            "models_dir": str(self.models_dir),
            "probes": [probe.to_json() for probe in self.probes],
        }
