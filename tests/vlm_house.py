"""A VLM server for tests and benchmarks: OpenAI's interface as MinerU's client uses it, a process of its own.

    python -m tests.vlm_house --port 8001 --seconds 1 --slots 1

Each page takes `seconds` from its layout request, `slots` at once; whatever more comes waits. What it is asked is
checked against what a real one needs: its own model's name, a picture that opens, a prompt that it knows. It answers
in the format that `mineru_vl_utils` parses, so that pages really come out. `POST /control` changes how it behaves
while it runs, `GET /control` tells what it was asked.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import io
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests
from aiohttp import web
from PIL import Image

from tests.serving import free_port, wait_until

ROOT = Path(__file__).resolve().parent.parent
TEXT = "Seven herons stood in the shallow water and waited."
LAYOUT = "<|box_start|>100 100 900 300<|box_end|><|ref_start|>text<|ref_end|><|rotate_up|>"
FAULTS = ("401", "429", "500", "503", "302", "garbage", "hang", "reset", "deaf", "400")


@dataclass
class House:
    """How it behaves, and what it saw."""

    model: str
    key: str
    seconds: float
    slots: int
    fault: str = ""
    retry_after: str = ""
    pages: int = 0
    answered: int = 0
    asked: int = 0
    most_at_once: int = 0
    at_once: int = 0
    refused: list[str] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.room = asyncio.Semaphore(self.slots)

    async def models(self, request: web.Request) -> web.Response:
        if self.fault == "deaf":
            await asyncio.sleep(3600)
        self._check_key(request)
        return web.json_response({"object": "list", "data": [{"id": self.model, "object": "model"}]})

    async def complete(self, request: web.Request) -> web.StreamResponse:
        self._check_key(request)
        prompt = self._checked(await request.json())
        self.asked += 1
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            if self.fault:
                return await self._misbehave(request)
            async with self.room:
                layout = "Layout Detection" in prompt
                # As a real one: an answer costs its time, whatever it says.
                await asyncio.sleep(self.seconds if layout else 0)
            self.pages += layout
            self.answered += 1
            return _completion(LAYOUT if layout else TEXT)
        finally:
            self.at_once -= 1

    async def _misbehave(self, request: web.Request) -> web.StreamResponse:
        if self.fault in ("hang", "deaf"):
            await asyncio.sleep(3600)
        if self.fault == "reset":
            assert request.transport is not None
            request.transport.abort()
        if self.fault == "garbage":
            return web.Response(text="<html>busy</html>", content_type="text/html")
        headers = {"Location": "http://127.0.0.1:1/"} if self.fault == "302" else {}
        headers |= {"Retry-After": self.retry_after} if self.retry_after else {}
        return web.json_response({"error": {"message": "a fault on purpose"}}, status=int(self.fault), headers=headers)

    def _check_key(self, request: web.Request) -> None:
        sent = request.headers.get("Authorization", "")
        self.keys.append(sent)
        if self.key and sent != f"Bearer {self.key}":
            raise web.HTTPUnauthorized

    def _checked(self, body: dict[str, Any]) -> str:
        try:
            assert body["model"] == self.model, f"model {body['model']}"
            assert not body.get("stream"), "streaming"
            (user,) = [message for message in body["messages"] if message["role"] == "user"]
            (picture,) = [part["image_url"]["url"] for part in user["content"] if part["type"] == "image_url"]
            (prompt,) = [part["text"] for part in user["content"] if part["type"] == "text"]
            head, _, data = picture.partition(",")
            assert head == "data:image/png;base64", head
            Image.open(io.BytesIO(base64.b64decode(data))).verify()
            assert prompt.strip() in ("Layout Detection:", "Text Recognition:"), prompt
        except (AssertionError, KeyError, ValueError, OSError) as exc:
            self.refused.append(f"{type(exc).__name__}: {exc}")
            raise web.HTTPUnprocessableEntity from None
        return str(prompt)

    async def control(self, request: web.Request) -> web.Response:
        if request.method == "POST":
            for name, value in (await request.json()).items():
                assert name in ("fault", "seconds", "retry_after", "key", "pages", "asked", "keys", "most_at_once")
                setattr(self, name, value)
        seen = ("pages", "answered", "asked", "most_at_once", "at_once", "refused", "keys")
        return web.json_response({name: getattr(self, name) for name in seen})


def _completion(text: str) -> web.Response:
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    usage = {"prompt_tokens": 1, "completion_tokens": len(text.split()), "total_tokens": 1 + len(text.split())}
    return web.json_response({"id": "1", "object": "chat.completion", "choices": [choice], "usage": usage})


@dataclass
class Standin:
    """One such process, seen from a test."""

    port: int
    arguments: tuple[str, ...] = ()
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def begin(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.vlm_house", "--port", str(self.port), *self.arguments], cwd=ROOT
        )

    def wait(self) -> None:
        wait_until(self._answers, 60, f"{self.url} starts")

    def kill(self) -> None:
        if self.process is not None:
            # Stopped ones too.
            self.process.send_signal(signal.SIGKILL)
            self.process.wait(timeout=15)

    def behave(self, **how: Any) -> None:
        requests.post(f"{self.url}/control", json=how, timeout=10).raise_for_status()

    def afresh(self, seconds: float) -> None:
        """As it was at its start; for the next test."""
        if self.process is None or self.process.poll() is not None:
            self.begin()
            self.wait()
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)
        self.behave(fault="", seconds=seconds, retry_after="", key="", pages=0, asked=0, keys=[], most_at_once=0)

    def seen(self) -> dict[str, Any]:
        told: dict[str, Any] = requests.get(f"{self.url}/control", timeout=10).json()
        return told

    def _answers(self) -> bool:
        with contextlib.suppress(requests.RequestException):
            return bool(self.seen())
        return False


@contextlib.contextmanager
def standins(number: int, *arguments: str, each: Sequence[tuple[str, ...]] = ()) -> Iterator[list[Standin]]:
    """So many of them, running; `each` adds arguments of their own."""
    houses = [Standin(free_port(), (*arguments, *(each[n] if each else ()))) for n in range(number)]
    try:
        for house in houses:
            house.begin()
        for house in houses:
            house.wait()
        yield houses
    finally:
        for house in houses:
            house.kill()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--seconds", type=float, default=0.0)
    parser.add_argument("--slots", type=int, default=1)
    parser.add_argument("--key", default="")
    parser.add_argument("--model", default="")
    parser.add_argument("--fault", default="", choices=("", *FAULTS))
    parser.add_argument("--orphan", action="store_true", help="go on when the parent is gone")
    args = parser.parse_args()
    parent = os.getppid()

    async def serve() -> None:
        house = House(args.model or f"model-of-{args.port}", args.key, args.seconds, args.slots, args.fault)
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_get("/v1/models", house.models)
        app.router.add_post("/v1/chat/completions", house.complete)
        app.router.add_route("*", "/control", house.control)
        runner = web.AppRunner(app, handler_cancellation=True, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", args.port, reuse_address=True).start()
        while args.orphan or os.getppid() == parent:
            await asyncio.sleep(0.5)
        os._exit(0)

    asyncio.run(serve())


if __name__ == "__main__":
    main()
