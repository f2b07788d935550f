"""From the settings to the pool that the main process hands out: addresses checked, keys matched. Opens the gate."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from docfleet.addresses import canonical, usable_key
from docfleet.errors import ConfigurationError
from docfleet.settings import Settings
from docfleet.vlm.gate import Gate, open_gate
from docfleet.vlm.records import Member, PoolSettings

#: More workers than this for the sake of VLM servers only take memory: each sends a window of pages at once.
_MOST_WORKERS = 32


@dataclass(frozen=True, kw_only=True)
class OwnServers:
    """Servers that this machine runs itself."""

    #: Canonical.
    urls: tuple[str, ...]
    #: What they are: their ports may be others tomorrow.
    identity: str
    state_file: Path


@dataclass(frozen=True, kw_only=True)
class PoolPlan:
    """What the main process decided."""

    gate: Gate
    members: tuple[Member, ...]
    #: Canonical addresses that callers may name, and that may be added while running; members are among them.
    allowed: tuple[str, ...]
    settings: PoolSettings
    log_level: str = "info"
    #: File of what is changed while the pool works (`docfleet.vlm.changes`); None: nothing is kept.
    changes: Path | None = None
    #: Those of them that run on this machine; None: there are none.
    own: OwnServers | None = None
    #: Whether the settings want a pool, though all its servers may have been drained since.
    wanted: bool = False

    @property
    def in_use(self) -> bool:
        """Whether workers are to ask the pool."""
        return self.wanted or bool(self.members)

    @property
    def lasting(self) -> frozenset[str]:
        """Addresses of which changes outlive the server: those that this machine gave itself mean nothing tomorrow."""
        return lasting(self.allowed, self.own)

    @property
    def local(self) -> Path | None:
        """Where the launcher tells of the members that run on this machine (`docfleet.vlm.local`), if any do."""
        return None if self.own is None else self.own.state_file

    @property
    def identity(self) -> tuple[str, ...]:
        """What answers, whatever its port: results of other servers and models differ. Empty where nobody does."""
        if not self.in_use:
            return ()
        own, told = ((), ()) if self.own is None else (self.own.urls, (self.own.identity,))
        return (*(member.url for member in self.members if member.url not in own), *told, self.settings.model)


def plan_pool(settings: Settings, own: OwnServers | None = None) -> PoolPlan | None:
    """Return the pool, or None where the settings name no VLM server at all.

    Args:
        settings: name servers.
        own: servers that this machine runs itself.

    Raises:
        ConfigurationError: an address cannot be used, or the keys do not fit the servers.
    """
    members, allowed = named_servers(settings, own)
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
        own=own,
        wanted=bool(members),
    )


def named_servers(settings: Settings, own: OwnServers | None) -> tuple[tuple[Member, ...], tuple[str, ...]]:
    """Return the members as the settings want them, and all addresses that may be used.

    Raises:
        ConfigurationError: see `plan_pool`.
    """
    members = members_of(settings)
    if own is not None:
        members += tuple(Member(url=url) for url in own.urls)
    named = _addresses("allowed_server_urls", settings.allowed_server_urls)
    return members, tuple(dict.fromkeys((*(member.url for member in members), *named)))


def lasting(allowed: Iterable[str], own: OwnServers | None) -> frozenset[str]:
    """Return the addresses of which changes outlive the server."""
    return frozenset(allowed).difference(() if own is None else own.urls)


def members_of(settings: Settings) -> tuple[Member, ...]:
    """Return the servers of the pool with their keys.

    Raises:
        ConfigurationError: see `plan_pool`.
    """
    urls = (
        *_addresses("vlm_server_url", settings.vlm_server_url),
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


def workers_for(planned: int, *, servers: int, on_cpu: bool, most: int | None) -> int | None:
    """Return how many workers there should be for the sake of VLM servers; None: as many as planned.

    A worker computes (rendering, layout, text detection) and then waits for the servers. On a machine without an
    accelerator one worker a server keeps all of them busy while other workers compute.

    Args:
        planned: workers that cores and memory carry.
        servers: of the pool.
        on_cpu: whether all of them are on the CPU.
        most: workers that the user wants, or allows; None: nobody said.
    """
    wanted = min(servers, _MOST_WORKERS if most is None else most, _MOST_WORKERS)
    return None if not on_cpu or wanted <= planned else wanted


def _addresses(setting: str, written: Iterable[str]) -> tuple[str, ...]:
    try:
        return tuple(canonical(address) for address in written)
    except ValueError as exc:
        raise ConfigurationError(f"{setting}: an address in it {exc}; write it as http://10.0.0.5:8001.") from None
