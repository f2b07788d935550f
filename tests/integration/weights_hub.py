"""A hub of weights on this machine that speaks as much of Hugging Face and of ModelScope as their libraries ask for."""

from __future__ import annotations

import contextlib
import hashlib
import json
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "5f" * 20
REPOSITORY = "MinerU-4_models_onnx"
#: Files up to here are kept in git by Hugging Face, larger ones in LFS: their checksums differ.
_IN_GIT = 1000
_BLOCK = 1 << 16


class WeightsHub:
    """What the hub holds, does wrong, and was asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = ""
        #: What to do wrong with the next transfers of a file: "break" (after `break_at` bytes), "corrupt", "503".
        self.faults: dict[str, list[str]] = {}
        self.break_at = 0
        #: Repositories that it holds, by name.
        self.folders = {REPOSITORY: folder}
        #: Seconds for each block of a transfer.
        self.slow = 0.0
        #: Bytes after which a transfer waits for `go`; None: none waits.
        self.hold_at: int | None = None
        self.go = threading.Event()
        #: Transfers begun, by file.
        self.transfers: Counter[str] = Counter()
        #: First byte asked for, of transfers that did not start at 0.
        self.resumed: dict[str, int] = {}
        self.lock = threading.Lock()

    def files(self, repository: str = REPOSITORY) -> dict[str, Path]:
        folder = self.folders[repository]
        return {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}

    def next_fault(self, name: str) -> str:
        with self.lock:
            self.transfers[name] += 1
            waiting = self.faults.get(name)
            return waiting.pop(0) if waiting else ""

    def environment(self, source: str) -> dict[str, str]:
        """Variables that lead the hubs' own libraries here."""
        direct = {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1", "HF_HUB_DISABLE_XET": "1"}
        addresses = {"HF_ENDPOINT": self.url, "MODELSCOPE_ENDPOINT": self.url}
        return direct | addresses | {"MINERU_MODEL_SOURCE": source}


@contextlib.contextmanager
def weights_hub(folder: Path) -> Iterator[WeightsHub]:
    """Serve the files of a folder as the repository of small models."""
    hub = WeightsHub(folder)

    class Handler(_Handler):
        held = hub

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *arguments: object) -> None:
            """Clients that are killed are what these tests are about."""

    server = Server(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield hub
    finally:
        hub.go.set()
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    held: WeightsHub

    def log_message(self, *arguments: object) -> None:
        """Stay silent."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        address = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(address.query).items()}
        path = unquote(address.path)
        repository = next((name for name in self.held.folders if f"/{name}/" in f"{path}/"), "")
        if not repository:
            self.send_error(404)
            return
        files = [(name, place.read_bytes()) for name, place in self.held.files(repository).items()]
        huggingface, modelscope = f"/opendatalab/{repository}", f"/api/v1/models/OpenDataLab/{repository}"
        if path.startswith(f"/api/models{huggingface}"):
            self._json({"id": huggingface[1:], "sha": COMMIT, "siblings": [self._sibling(*f) for f in files]})
        elif path.startswith(f"{huggingface}/resolve/"):
            self._file(repository, path.removeprefix(f"{huggingface}/resolve/").partition("/")[2])
        elif path == f"{modelscope}/repo/files":
            self._json({"Code": 200, "Success": True, "Data": {"Files": [self._entry(*f) for f in files]}})
        elif path == f"{modelscope}/repo":
            self._file(repository, query["FilePath"])
        else:
            self.send_error(404)

    def _sibling(self, name: str, content: bytes) -> dict[str, object]:
        entry: dict[str, object] = {"rfilename": name, "size": len(content), "blobId": _blob(content)}
        if len(content) > _IN_GIT:
            sha256 = hashlib.sha256(content).hexdigest()
            entry["lfs"] = {"sha256": sha256, "size": len(content), "pointerSize": 130}
        return entry

    def _entry(self, name: str, content: bytes) -> dict[str, object]:
        sha256 = hashlib.sha256(content).hexdigest()
        return {"Path": name, "Name": name, "Type": "blob", "Size": len(content), "Sha256": sha256}

    def _json(self, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _file(self, repository: str, name: str) -> None:
        path = self.held.files(repository).get(name)
        if path is None:
            self.send_error(404)
            return
        content = path.read_bytes()
        fault = self.held.next_fault(name) if self.command == "GET" else ""
        if fault == "503":
            self.send_error(503)
            return
        first = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")[0])
        last = self.headers.get("Range", "").rpartition("-")[2]
        end = int(last) + 1 if last else len(content)
        self.send_response(206 if "Range" in self.headers else 200)
        self.send_header("Content-Length", str(end - first))
        if "Range" in self.headers:
            self.send_header("Content-Range", f"bytes {first}-{end - 1}/{len(content)}")
        if first:
            self.held.resumed[name] = first
        digest = hashlib.sha256(content).hexdigest() if len(content) > _IN_GIT else _blob(content)
        self.send_header("ETag", f'"{digest}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("X-Linked-Size", str(len(content)))
        self.send_header("Accept-Ranges", "bytes")
        self.end_headers()
        if self.command == "GET":
            self._send(bytes(len(content)) if fault == "corrupt" else content, first, end, fault == "break")

    def _send(self, content: bytes, first: int, end: int, breaks: bool) -> None:
        for start in range(first, end, _BLOCK):
            time.sleep(self.held.slow)
            if self.held.hold_at is not None and start >= self.held.hold_at:
                self.wfile.flush()
                self.held.go.wait()
            if breaks and start >= self.held.break_at:
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 0, 0))
                self.wfile.flush()
                time.sleep(0.05)
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            self.wfile.write(content[start : min(start + _BLOCK, end)])


def _blob(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
