"""Model hubs that answer, and hubs that misbehave: real servers on this machine, for tests."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec


class Hub:
    """A server under way; `held` is set when its requests may end."""

    def __init__(self) -> None:
        self.url = ""
        self.held = threading.Event()
        #: "METHOD path" of every request.
        self.requests: list[str] = []


Behaviour = Callable[[BaseHTTPRequestHandler, Hub], None]


def answers(status: int, **headers: str) -> Behaviour:
    """A hub that answers with a status."""

    def act(handler: BaseHTTPRequestHandler, hub: Hub) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.end_headers()

    return act


def hangs(handler: BaseHTTPRequestHandler, hub: Hub) -> None:
    """Take the request and say nothing."""
    hub.held.wait()


def dribbles(handler: BaseHTTPRequestHandler, hub: Hub) -> None:
    """Begin an answer and never end it, one byte at a time: each byte in time, the whole never."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    with contextlib.suppress(OSError):
        while not hub.held.wait(0.05):
            handler.wfile.write(b"x")


def resets(handler: BaseHTTPRequestHandler, hub: Hub) -> None:
    """Break the connection off."""
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()


def closes(handler: BaseHTTPRequestHandler, hub: Hub) -> None:
    """End the connection without an answer."""


def talks_nonsense(handler: BaseHTTPRequestHandler, hub: Hub) -> None:
    """Answer in another protocol."""
    handler.wfile.write(b"220 mail.example.org ESMTP\r\n")


def redirects_in_a_loop(handler: BaseHTTPRequestHandler, hub: Hub) -> None:
    """Send the client to where it is."""
    answers(302, Location=handler.path)(handler, hub)


def redirects_slowly(handler: BaseHTTPRequestHandler, hub: Hub) -> None:
    """Send the client on and on, each step in time."""
    hub.held.wait(0.6)
    answers(302, Location=handler.path)(handler, hub)


@contextlib.contextmanager
def hub(act: Behaviour, *, certificate: tuple[Path, Path] | None = None) -> Iterator[Hub]:
    """Run a hub; with a certificate and its key it speaks TLS."""
    house = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            house.requests.append(f"{self.command} {self.path}")
            with contextlib.suppress(OSError):
                act(self, house)

        do_GET = do_HEAD

        def log_message(self, *arguments: object) -> None:
            """Stay silent."""

    class Server(ThreadingHTTPServer):
        def handle_error(self, *arguments: object) -> None:
            """A client that leaves is what these tests are about."""

    server = Server(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    house.url = f"{'https' if certificate else 'http'}://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield house
    finally:
        house.held.set()
        server.shutdown()
        thread.join()
        server.server_close()


def self_signed(folder: Path) -> tuple[Path, Path]:
    """Write a certificate for 127.0.0.1 that nobody has signed but itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    paths = folder / "hub.pem", folder / "hub.key"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return paths


def closed_port() -> str:
    """Return an address where nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"
