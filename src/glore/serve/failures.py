"""Errors as OpenAI's clients know them: `{"error": {message, type, param, code}}` and a status."""

from __future__ import annotations

from collections.abc import Mapping

from glore.errors import printable

__all__ = ["ApiError", "invalid", "too_large"]


class ApiError(Exception):
    """A request that is not answered. `headers` go with the answer, such as Retry-After."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.code = status, code
        self.param = None if param is None else printable(param, 100)  # it may be a client's text
        self.headers = dict(headers or {})

    @property
    def body(self) -> dict[str, object]:
        """The JSON object of the answer."""
        kind = {401: "authentication_error", 429: "rate_limit_error"}.get(
            self.status, "invalid_request_error" if self.status < 500 else "server_error"
        )
        message = printable(super().__str__())
        return {"error": {"message": message, "type": kind, "param": self.param, "code": self.code}}


def invalid(param: str | None, message: str, code: str | None = None) -> ApiError:
    """A mistake in the request: status 400."""
    return ApiError(400, message, param=param, code=code)


def too_large(param: str, what: str, limit: int, got: int) -> ApiError:
    """A value above one of the server's limits: status 400."""
    return invalid(param, f"{what}: at most {limit:,}, got {got:,}", "limit_exceeded")
