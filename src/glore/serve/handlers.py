"""What clients get where a route raises an error."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from glore.errors import GloreError, shown
from glore.serve.failures import ApiError, invalid

__all__ = ["add_handlers", "as_api_error"]


def add_handlers(app: FastAPI) -> None:
    """Let this application answer every error as OpenAI's clients know them."""
    app.add_exception_handler(ApiError, _api_error)
    app.add_exception_handler(RequestValidationError, _body_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(GloreError, _unexpected)
    app.add_exception_handler(Exception, _unexpected)  # uvicorn logs these


def as_api_error(error: Exception) -> ApiError:
    """What a model's failure says to a client. A bug says nothing of the server's inside."""
    if isinstance(error, GloreError):
        return ApiError(500, f"the models could not answer: {error}")
    return ApiError(500, f"unexpected {type(error).__name__}; the server's log has more")


async def _api_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return JSONResponse(error.body, error.status, headers=error.headers)


async def _body_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        found = invalid(None, f"the body is not JSON: {first['msg'][:200]}")
    elif isinstance(first.get("input"), bytes):
        found = invalid(None, "the body is sent with the header Content-Type: application/json")
    else:
        place = _place(first["type"], first["loc"][1:])
        got = "" if first["type"] == "missing" else f", got {shown(first.get('input'), 60)}"
        found = invalid(place or None, f"{place[:100] or 'the body'}: {first['msg'][:200]}{got}")
    return await _api_error(request, found)


def _place(kind: str, parts: Sequence[str | int]) -> str:
    """Where in the body a mistake is, such as `messages.0.role`.

    Of a field with several types, pydantic also names the type that it has tried.
    """
    if kind == "extra_forbidden":  # such a field can have any name
        return ".".join(map(str, parts))
    types = ("str", "int", "float", "bool")
    return ".".join(
        str(part)
        for part in parts
        if not (isinstance(part, str) and (part in types or "[" in part))
    )


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    found = ApiError(error.status_code, str(error.detail)[:200], headers=error.headers)
    return await _api_error(request, found)


async def _unexpected(request: Request, error: Exception) -> Response:
    return await _api_error(request, as_api_error(error))
