"""From the settings to the pool that the main process hands out: addresses checked, keys matched. Opens the gate."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from docfleet.addresses import canonical, usable_key
from docfleet.errors import ConfigurationError
from docfleet.settings import Settings
from docfleet.vlm.gate import Gate, open_gate
from docfleet.vlm.records import Member, PoolSettings

#: More workers than this for the sake of VLM servers only take memory: each sends a window of pages at once.
_MOST_WORKERS = 32


@dataclass(frozen=True, kw_only=True)
class PoolPlan:
    """What the main process decided."""

    gate: Gate
    members: tuple[Member, ...]
    #: Canonical addresses that callers may name, and that may be added while running; members are among them.
    allowed: tuple[str, ...]
    settings: PoolSettings
    log_level: str = "info"


def plan_pool(settings: Settings) -> PoolPlan | None:
    """Return the pool, or None where the settings name no VLM server at all.

    Raises:
        ConfigurationError: an address cannot be used, or the keys do not fit the servers.
    """
    members = members_of(settings)
    named = _addresses("allowed_server_urls", settings.allowed_server_urls)
    allowed = tuple(dict.fromkeys((*(member.url for member in members), *named)))
    if not allowed:
        return None
    return PoolPlan(
        gate=open_gate(),
        members=members,
        allowed=allowed,
        settings=PoolSettings(
            serial=settings.vlm_serial,
            most=settings.vlm_max_requests,
            timeout=settings.vlm_timeout,
            patience=settings.vlm_patience,
            model=settings.vlm_model,
        ),
        log_level=settings.log_level,
    )


def members_of(settings: Settings) -> tuple[Member, ...]:
    """Return the servers of the pool with their keys.

    Raises:
        ConfigurationError: see `plan_pool`.
    """
    urls = (
        *_addresses("vlm_server_url", filter(None, [settings.vlm_server_url])),
        *_addresses("vlm_endpoints", settings.vlm_endpoints),
    )
    keys = [key.get_secret_value() for key in settings.vlm_api_keys]
    if not all(map(usable_key, keys)):
        raise ConfigurationError("vlm_api_keys must be printable ASCII, without spaces, commas between them.")
    if len(keys) == 1:
        keys *= len(urls)
    if keys and len(keys) != len(urls):
        raise ConfigurationError(
            f"vlm_api_keys has {len(keys)} keys for {len(urls)} VLM servers; give one for each, in the order of "
            "vlm_server_url and vlm_endpoints, or one for all."
        )
    keyed = dict(zip(urls, keys or [""] * len(urls), strict=True))
    return tuple(Member(url=url, key=key) for url, key in keyed.items())


def workers_for(planned: int, *, servers: int, on_cpu: bool, asked: bool) -> int | None:
    """Return how many workers there should be for the sake of VLM servers; None: as many as planned.

    A worker computes (rendering, layout, text detection) and then waits for the servers. On a machine without an
    accelerator one worker a server keeps all of them busy while other workers compute.
    """
    wanted = min(servers, _MOST_WORKERS)
    return None if asked or not on_cpu or wanted <= planned else wanted


def _addresses(setting: str, written: Iterable[str]) -> tuple[str, ...]:
    try:
        return tuple(canonical(address) for address in written)
    except ValueError as exc:
        raise ConfigurationError(f"{setting}: an address in it {exc}; write it as http://10.0.0.5:8001.") from None
