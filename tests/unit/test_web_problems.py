from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi import APIRouter, FastAPI
from loguru import logger
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response, StreamingResponse
from starlette.testclient import TestClient

from docfleet.errors import Busy, InternalError, InvalidOption
from docfleet.web.problems import install_error_handlers


async def busy() -> Response:
    raise Busy("The queue is full; try again in 12 seconds.", retry_after=11.2)


async def surrogate() -> Response:
    raise InvalidOption("option '\ud800' is not known")


async def typed(number: int) -> dict[str, int]:
    return {"number": number}


async def unforeseen() -> Response:
    raise ZeroDivisionError("secret /internal/path")


async def foreign() -> Response:
    raise HTTPException(401, "Invalid key", headers={"WWW-Authenticate": "X-API-Key"})


async def left() -> Response:
    raise ClientDisconnect


async def cut() -> Response:
    async def pieces() -> object:
        yield b"begun"
        raise ZeroDivisionError("in the middle")

    return StreamingResponse(pieces())  # type: ignore[arg-type]


async def left_midway() -> Response:
    async def pieces() -> object:
        yield b"begun"
        raise ClientDisconnect

    return StreamingResponse(pieces())  # type: ignore[arg-type]


@pytest.fixture
def client() -> TestClient:
    app = FastAPI()
    install_error_handlers(app)
    for endpoint in (busy, surrogate, typed, unforeseen, foreign, left, left_midway, cut):
        app.add_api_route(f"/{endpoint.__name__}", endpoint, methods=["GET"])
    more = APIRouter()
    more.add_api_route("/busy", busy, methods=["PUT"])
    app.include_router(more)
    return TestClient(app)


@pytest.fixture
def logged() -> Iterator[list[str]]:
    lines: list[str] = []
    sink = logger.add(lambda message: lines.append(str(message)), level="DEBUG", diagnose=False)
    yield lines
    logger.remove(sink)


def test_an_error_of_ours_keeps_its_status_code_and_time_to_try_again(client: TestClient) -> None:
    response = client.get("/busy")
    assert response.status_code == 429
    assert response.headers["retry-after"] == "12", "rounded up: earlier would be refused again"
    assert response.json() == {"error": Busy("The queue is full; try again in 12 seconds.").record()}


def test_text_that_utf8_cannot_hold_does_not_turn_an_error_into_another(client: TestClient) -> None:
    response = client.get("/surrogate")
    assert response.status_code == 422
    assert response.json()["error"]["message"] == "option '?' is not known"


def test_the_frameworks_own_validation_comes_out_in_our_shape(client: TestClient) -> None:
    response = client.get("/typed", params={"number": "many"})
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["code"] == "invalid_request"
    assert "query.number" in error["message"]


@pytest.mark.parametrize(
    ("method", "path", "status", "code", "remedy"),
    [
        ("GET", "/nowhere", 404, "not_found", "/docs"),
        ("DELETE", "/busy", 405, "method_not_allowed", "GET"),
        ("GET", "/foreign", 401, "unauthorized", "Invalid key"),
    ],
)
def test_errors_known_by_status_alone_come_out_in_our_shape_with_a_remedy(
    client: TestClient, method: str, path: str, status: int, code: str, remedy: str
) -> None:
    response = client.request(method, path)
    assert response.status_code == status
    error = response.json()["error"]
    assert error["code"] == code
    assert error["retryable"] is False
    assert remedy in error["message"]


def test_headers_that_come_with_an_error_are_kept(client: TestClient) -> None:
    assert client.get("/foreign").headers["www-authenticate"] == "X-API-Key"


def test_a_refused_method_names_all_that_the_address_knows_not_those_of_its_first_route(client: TestClient) -> None:
    refused = client.delete("/busy")
    assert refused.headers["allow"] == "GET, PUT"
    assert refused.json()["error"]["message"] == "DELETE does not work at /busy; use GET, PUT."


def test_an_unforeseen_error_is_logged_once_under_the_number_that_the_caller_gets(
    client: TestClient, logged: list[str]
) -> None:
    response = client.get("/unforeseen")
    assert response.status_code == 500
    error = response.json()["error"]
    assert error["code"] == InternalError.code
    assert "secret" not in response.text
    assert "ZeroDivision" not in response.text
    (line,) = (line for line in logged if "incident" in line)
    number = line.partition("incident ")[2].split()[0]
    assert number in error["message"]
    assert "ZeroDivisionError: secret /internal/path" in line
    assert "Traceback" in line


def test_a_caller_that_left_is_no_incident(client: TestClient, logged: list[str]) -> None:
    assert client.get("/left").status_code == 499
    client.get("/left_midway")
    assert not [line for line in logged if "Traceback" in line or "ERROR" in line]


def test_a_response_that_breaks_off_is_logged_and_not_finished_as_if_it_were_whole(
    client: TestClient, logged: list[str]
) -> None:
    sent = client.get("/cut").content
    assert sent == b"begun"
    assert len([line for line in logged if "incident" in line]) == 1
