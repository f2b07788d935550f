"""The way to one VLM server: a request, or a question after its health. OpenAI's HTTP interface, as MinerU uses it.

MinerU's client (mineru-vl-utils 2.0) lists `/v1/models`, expects one, and posts to `/v1/chat/completions` without
streaming; both are sent on as they are, but for the model's name and the key, which are the server's own.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

import aiohttp

from docfleet.vlm.breaker import Circuit
from docfleet.vlm.endpoint import Endpoint
from docfleet.vlm.records import PoolSettings

#: What workers' clients are told the model is called.
MODEL_ALIAS = "docfleet"
#: Bytes of an answer; MinerU's longest are a few hundred kB.
_LONGEST_ANSWER = 32 * 1024 * 1024
_CONNECT_SECONDS = 5.0
_TRIAL_SECONDS = 60.0
_BLOCK = 64 * 1024

#: MinerU writes the model's name first; only there is it replaced without reading megabytes of pictures.
_MODEL_FIRST = re.compile(rb'\A\s*\{\s*"model"\s*:\s*"(?:[^"\\]|\\.)*"')

#: MinerU's prompt names what is asked for ("Layout Detection:", "Text Recognition:"); it follows the picture.
_PROMPT = re.compile(rb'"text"\s*:\s*"(?:\\n|\s)*([A-Za-z][A-Za-z ]{0,30}):')
_PROMPT_WITHIN = 2048

#: Statuses that say something of the server and not of the page: gone, overloaded, wrong key, no such model.
_CONGESTED = frozenset({429, 503})
_BROKEN = frozenset({408, 500, 502, 504})
_UNUSABLE = frozenset({401, 403, 404, 405, 407})


@dataclass(frozen=True)
class Reply:
    """What a server answered; also an error that is the request's own."""

    status: int
    body: bytes
    content_type: str = "application/json"


class Trouble(Exception):
    """The server did not answer as it should; another may."""

    def __init__(self, reason: str, *, reached: bool = True, final: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        #: Whether the request may have been what went wrong: it was sent in full.
        self.reached = reached
        #: Whether trying there again is idle until somebody mends the server or the settings.
        self.final = final


class Congestion(Exception):
    """The server has too much to do."""

    def __init__(self, retry_after: float | None) -> None:
        super().__init__("has too much to do")
        self.retry_after = retry_after


class Upstream:
    """Talks to all servers. For one event loop."""

    def __init__(self, settings: PoolSettings) -> None:
        self._settings = settings
        # Redirects are not followed: they could lead where the settings do not allow. Nor are proxies of the
        # environment asked, as MinerU's own client does not.
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0), cookie_jar=aiohttp.DummyCookieJar(), trust_env=False
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()

    async def ask(self, endpoint: Endpoint, body: bytes) -> Reply:
        """Send a request. One on trial gets less time: its server has failed before.

        Raises:
            Congestion: the server has too much to do.
            Trouble: anything else that is not the request's fault.
        """
        on_trial = endpoint.breaker.circuit is Circuit.HALF_OPEN
        seconds = min(self._settings.timeout, _TRIAL_SECONDS) if on_trial else self._settings.timeout
        status, content_type, answer, after = await self._exchange(
            endpoint, "POST", "/v1/chat/completions", seconds, _with_model(body, endpoint.model)
        )
        if status in _CONGESTED:
            raise Congestion(after)
        if status in _BROKEN or status in _UNUSABLE or status < 200 or 300 <= status < 400:
            raise Trouble(f"it answered {status}", reached=status in _BROKEN, final=status not in _BROKEN)
        if status < 300 and not _is_completion(answer):
            raise Trouble("its answer is not what a VLM server answers")
        return Reply(status, answer, content_type)

    async def offered_model(self, endpoint: Endpoint) -> str:
        """Ask after the server's health. Return the model to ask it for.

        Raises:
            Trouble: it is not well, or has not the model.
        """
        status, _, answer, _ = await self._exchange(endpoint, "GET", "/v1/models", self._settings.check_timeout)
        if status != 200:
            raise Trouble(f"it answers health checks with {status}")
        names = _model_names(answer)
        wanted = self._settings.model
        if wanted:
            if wanted not in names:
                raise Trouble(f"it does not offer the model {wanted!r}")
            return wanted
        if len(names) != 1:
            raise Trouble(f"it offers {len(names)} models where one is needed; name it in the setting vlm_model")
        return names[0]

    async def _exchange(
        self, endpoint: Endpoint, method: str, path: str, seconds: float, body: bytes | None = None
    ) -> tuple[int, str, bytes, float | None]:
        headers = {"Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        if endpoint.member.key:
            headers["Authorization"] = f"Bearer {endpoint.member.key}"
        timeout = aiohttp.ClientTimeout(total=seconds, sock_connect=min(_CONNECT_SECONDS, seconds))
        try:
            async with self._session.request(
                method, endpoint.url + path, data=body, headers=headers, timeout=timeout, allow_redirects=False
            ) as response:
                answer = await _bounded(response)
                return response.status, response.content_type, answer, _seconds(response.headers.get("Retry-After"))
        except aiohttp.ClientConnectorError:
            raise Trouble("it cannot be reached", reached=False) from None
        except aiohttp.ConnectionTimeoutError:
            raise Trouble("it cannot be reached in time", reached=False) from None
        except TimeoutError:
            raise Trouble(f"it did not answer within {seconds:g} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as exc:
            raise Trouble(f"the connection broke ({type(exc).__name__})") from None


def kind_of(body: bytes) -> str:
    """Return what a request asks for, in MinerU's words; empty where it cannot be told."""
    prompts = _PROMPT.findall(body, max(0, len(body) - _PROMPT_WITHIN))
    return prompts[-1].decode() if prompts else ""


async def _bounded(response: aiohttp.ClientResponse) -> bytes:
    answer = bytearray()
    async for block in response.content.iter_chunked(_BLOCK):
        answer += block
        if len(answer) > _LONGEST_ANSWER:
            raise Trouble(f"its answer is longer than {_LONGEST_ANSWER} bytes")
    return bytes(answer)


def _seconds(header: str | None) -> float | None:
    try:
        return max(0.0, float(header or ""))
    except ValueError:
        return None


def _with_model(body: bytes, model: str) -> bytes:
    told = json.dumps(model).encode()
    head = _MODEL_FIRST.match(body, 0, 4096)
    if head is not None:
        return b'{"model":' + told + body[head.end() :]
    try:
        request = json.loads(body)
    except ValueError:
        return body
    return json.dumps({**request, "model": model}).encode() if isinstance(request, dict) else body


def _is_completion(answer: bytes) -> bool:
    choices = _json(answer).get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        return False
    return choices[0].get("finish_reason") is not None and isinstance(choices[0].get("message"), dict)


def _model_names(answer: bytes) -> list[str]:
    models = _json(answer).get("data")
    listed = models if isinstance(models, list) else []
    return [str(model["id"]) for model in listed if isinstance(model, dict) and model.get("id")]


def _json(answer: bytes) -> dict[str, Any]:
    try:
        value = json.loads(answer)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
