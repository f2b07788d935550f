"""What can run here: which weights lie on the disk, which VLM can be reached. Nothing is fetched: others do that."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from loguru import logger

from docfleet.addresses import split_addresses, to_segment
from docfleet.engine.interface import EngineContext
from docfleet.engine.mineru.failures import UNREACHED_REMEDY, WEIGHTS_REMEDY, short_cause, translated
from docfleet.engine.mineru.late_pool import LatePool
from docfleet.engine.mineru.loading import give_back_memory, load_small_models, load_vlm, unload_small_models
from docfleet.engine.mineru.sources import canonical
from docfleet.errors import ConfigurationError, DocfleetError, InvalidOption, OutOfDeviceMemory, TierUnavailable
from docfleet.models.progress import Fetching, read_status
from docfleet.options import VLM_TIERS, Method, ParseOptions, Tier

if TYPE_CHECKING:
    from mineru.config import VlmConfig
    from mineru.model.download import ModelRepo

#: Seconds that MinerU's client waits for the router, which keeps shorter times itself and always answers.
_ROUTER_SECONDS = 86400

_PLAIN_URL = "must be an http or https address without user, query or fragment"


class Readiness:
    """Answers `missing` for one worker and loads the weights that its documents will need."""

    def __init__(self, context: EngineContext) -> None:
        self._context = context
        #: Why a group of models did not load when it was tried; this process does not try it again.
        self._broken: dict[str, str] = {}
        router = context.vlm_router
        self._late_pool = LatePool(router) if router is not None and context.vlm_server_url is None else None

    def missing(self, tier: Tier, suffix: str, options: ParseOptions) -> str | None:
        """Return why such a document cannot be read at this tier and the remedy, or None."""
        from mineru.filetypes import PARSEABLE_EXTENSIONS, TIERED_PARSE_EXTENSIONS

        suffix = canonical(suffix)
        if suffix not in PARSEABLE_EXTENSIONS:
            return f"MinerU does not read {suffix} files."
        if suffix not in TIERED_PARSE_EXTENSIONS:
            return None
        if tier is Tier.FLASH and suffix == "pdf" and options.method is not Method.OCR:
            return None
        return self._small_models_missing() or (self._vlm_missing(options) if tier in VLM_TIERS else None)

    def require(self, tier: Tier, options: ParseOptions) -> None:
        """Make sure that pages can be recognised at this tier: at flash too, once a document turns out to be a scan.

        Raises:
            TierUnavailable: with what is missing and the remedy.
        """
        reason = self._small_models_missing() or (self._vlm_missing(options) if tier in VLM_TIERS else None)
        if reason is not None:
            raise TierUnavailable(f"The pages of this document have to be recognised. {reason}")

    def load(self) -> None:
        """Load the weights of the best tier that `auto` can take here; a failure becomes a reason of `missing`.

        A VLM that finds too little memory takes its tiers away until a fresh process tries again.

        Raises:
            OutOfDeviceMemory: too little memory is free for the small models; nothing of them is left in it.
        """
        if self._small_models_missing() is not None:
            return
        short = self._try("small", load_small_models)
        if short is not None:
            unload_small_models()
            give_back_memory(self._context.device)
            raise OutOfDeviceMemory(short)
        # A remote VLM may come and go; it is asked when a document needs it.
        if not self._remote_url(None) and "small" not in self._broken and self._vlm_missing(None) is None:
            short = self._try("vlm", load_vlm)
            if short is not None:
                self._broken["vlm"] = short
                give_back_memory(self._context.device)
                self._context.try_later()

    def vlm_config(self, options: ParseOptions) -> VlmConfig:
        """Return how the VLM of this document is reached.

        Through the router, which knows the keys, tries again elsewhere and keeps the time. Without one the configured
        key goes to the configured server only, never to one that a caller named.

        Raises:
            InvalidOption: the caller's server_url is no plain HTTP address.
            ConfigurationError: the configured one is none.
            TierUnavailable: none is to be asked, and here is none: the pool has lost its last server since `require`.
        """
        from mineru.config import VlmConfig, config

        settings = config.model.vlm
        routed = self._routed_url(options)
        if routed is not None:
            plain = {"server_url": routed, "api_key": "", "model": "", "http_timeout": _ROUTER_SECONDS}
            return VlmConfig.model_validate({**settings.model_dump(), **plain})
        configured = self._configured_url()
        url = options.server_url or configured
        if not url:
            reason = self._own_vlm_missing()
            if reason is not None:
                raise TierUnavailable(reason)
            return settings.model_copy(deep=True)
        try:
            own = VlmConfig(server_url=configured or "").server_url
        except ValueError:
            raise ConfigurationError(f"The configured VLM server {_PLAIN_URL}.") from None
        try:
            chosen = VlmConfig.model_validate({**settings.model_dump(), "server_url": url})
        except ValueError:
            raise InvalidOption(f"server_url {_PLAIN_URL}.") from None
        return chosen if chosen.server_url == own else chosen.model_copy(update={"api_key": ""})

    @contextmanager
    def vlm_client(self, options: ParseOptions) -> Iterator[None]:
        """Keep MinerU's client for servers that a caller named no longer than for this document.

        It keeps one, with a thread, for each address for ever: right for the configured servers only.
        """
        if options.server_url is None:
            yield
            return
        from mineru.model.vlm.async_runtime import RuntimeOwner, runtime_owner
        from mineru.model.vlm.runtime import ModelSingleton

        owner = RuntimeOwner()
        token = runtime_owner.set(owner)
        try:
            yield
        finally:
            runtime_owner.reset(token)
            ModelSingleton().release_owner(owner)

    def _routed_url(self, options: ParseOptions) -> str | None:
        router = self._context.vlm_router
        if router is None:
            return None
        if options.server_url is None:
            return self._context.vlm_server_url or self._late_pool_url()
        try:
            return f"{router}/{to_segment(split_addresses(options.server_url))}"
        except ValueError as exc:
            raise InvalidOption(f"option 'server_url': {exc}.") from None

    def _remote_url(self, options: ParseOptions | None) -> str | None:
        named = options.server_url if options is not None else None
        return named or self._late_pool_url() or self._configured_url()

    def _configured_url(self) -> str | None:
        from mineru.config import config

        return self._context.vlm_server_url or config.model.vlm.server_url or None

    def _late_pool_url(self) -> str | None:
        return None if self._late_pool is None else self._late_pool.url

    def _try(self, group: str, loader: Callable[[], None]) -> str | None:
        """Load. Return what to say if too little memory was free; any other failure is a reason of `missing`."""
        try:
            with translated():
                loader()
        except OutOfDeviceMemory as exc:
            logger.warning("MinerU's {} models are not loaded: {}", group, exc.message)
            return exc.message
        except DocfleetError as exc:
            logger.warning("MinerU's {} models cannot be used: {}", group, exc.message)
            self._broken[group] = exc.message
        return None

    def _small_models_missing(self) -> str | None:
        if "small" in self._broken:
            return self._broken["small"]
        try:
            from mineru.model.registry import small_model_repo
            from mineru.model.runtime.device import (
                TORCH_REQUIRED_MODULES,
                module_available,
                resolve_small_model_backend,
            )

            backend = resolve_small_model_backend()
            modules = ("onnxruntime", *(TORCH_REQUIRED_MODULES if backend == "torch" else ()))
            absent = [name for name in modules if not module_available(name)]
            if absent:
                return (
                    f"Packages are missing ({', '.join(absent)}): `pip install 'mineru[torch]'`, "
                    "or set MINERU_MODEL_SMALL_BACKEND=onnx."
                )
            return self._weights_missing(small_model_repo(backend))
        except ValueError as exc:
            return f"MinerU's settings cannot be used ({short_cause(exc)}); check MINERU_MODEL_SMALL_BACKEND."

    def _vlm_missing(self, options: ParseOptions | None) -> str | None:
        if self._remote_url(options):
            return None
        return self._own_vlm_missing()

    def _own_vlm_missing(self) -> str | None:
        reason = self._own_vlm_lacks()
        if reason is None or self._late_pool is None:
            return reason
        return f"{reason} The server's pool of VLM servers is empty: POST /vlm/endpoints adds one, at once."

    def _own_vlm_lacks(self) -> str | None:
        if "vlm" in self._broken:
            return self._broken["vlm"]
        try:
            from mineru.model.registry import vlm_model_repo
            from mineru.model.runtime.device import module_available
            from mineru.model.vlm.selector import VLM_REQUIRED_MODULES, resolve_vlm_engine

            engine = resolve_vlm_engine()
            absent = [name for name in VLM_REQUIRED_MODULES[engine] if not module_available(name)]
            if absent:
                return (
                    f"No vision-language model is here: packages for {engine} are missing ({', '.join(absent)}). "
                    "Install the extra `gpu`, or name a VLM server (vlm_server_url in the server's settings)."
                )
            return self._weights_missing(vlm_model_repo(engine))
        except ValueError as exc:
            return f"MinerU's settings cannot be used ({short_cause(exc)}); check MINERU_MODEL_VLM_ENGINE."

    def _weights_missing(self, repo: ModelRepo) -> str | None:
        from mineru.config import config
        from mineru.model.download import verify_model_repo

        found = verify_model_repo(repo)
        if found.ready:
            return None
        if self._context.model_source in repo.repos:
            fetching = read_status(Path(config.model.base_dir).expanduser()) or Fetching(state="")
            return f"Weights {repo.name} are not on this machine yet: {fetching}. Send the document again later."
        remedy = UNREACHED_REMEDY if self._context.hubs_unreached else WEIGHTS_REMEDY
        if len(found.missing_paths) < len(repo.paths):
            more = f" and {len(found.missing_paths) - 1} more" if len(found.missing_paths) > 1 else ""
            return f"Weights {repo.name} lack {found.missing_paths[0]}{more}. {remedy}"
        return f"Weights {repo.name} are not on this machine. {remedy}"
