"""Errors of the service as problem documents (RFC 9457): a status, a kind, and one line with the fix."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi.exceptions import RequestValidationError
from starlette.responses import JSONResponse

from genre_lightning.errors import one_line

MEDIA_TYPE = "application/problem+json"
_SHOWN_ERRORS = 3
_LONGEST_DETAIL = 500
_KIND = re.compile(r"(?:constrained-|str$|float$|bool$|list\[|dict\[).*")
"""How pydantic names the kinds that a field may have, in the place of an error."""


class Problem(Exception):
    """What a client is answered in place of a result.

    Args:
        status: Of HTTP.
        kind: A word for programs, such as "queue-full".
        detail: One line for people.
        headers: Of the answer.
    """

    def __init__(self, status: int, kind: str, detail: object, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(kind)
        self.status, self.kind = status, kind
        self.detail, self.headers = one_line(detail)[:_LONGEST_DETAIL], dict(headers or {})

    def response(self) -> JSONResponse:
        """Make the answer."""
        content = {
            "type": f"urn:genre-lightning:problem:{self.kind}",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
        }
        return JSONResponse(content, self.status, self.headers, media_type=MEDIA_TYPE)


def failed(number: str) -> Problem:
    """Give the problem of an error that nobody has foreseen; the log has more under the request's number."""
    return Problem(500, "internal-error", f"the service has failed: look for {number} in its log")


def of_validation(error: RequestValidationError) -> Problem:
    """Give the problem of a body that is not what the endpoint reads; values of the body are not repeated."""
    errors = error.errors()
    if any(one["type"] == "json_invalid" for one in errors):
        return Problem(400, "invalid-json", "the body is not valid JSON: send one JSON object in UTF-8")
    if any(one["type"] == "missing" and tuple(one["loc"]) == ("body",) for one in errors):
        return Problem(400, "no-body", "the body is empty: send one JSON object in UTF-8")
    # of the kinds that a field may have, the first is named
    errors = list({_place(one["loc"]): one for one in reversed(errors)}.values())[::-1]
    shown = [f"{_place(one['loc'])}: {_message(one)}" for one in errors[:_SHOWN_ERRORS]]
    more = f"; and {len(errors) - _SHOWN_ERRORS} more" if len(errors) > _SHOWN_ERRORS else ""
    return Problem(422, "invalid-request", f"{'; '.join(shown)}{more}: correct that, see /docs")


def _place(location: tuple[Any, ...]) -> str:
    # a key that the client has made up may be of any length
    named = itertools.takewhile(lambda part: not _KIND.fullmatch(str(part)), location[1:])
    return ".".join(str(part)[:40] for part in named) or "the body"


def _message(error: Mapping[str, Any]) -> str:
    if error["type"] == "extra_forbidden":
        return "unknown field"
    message = str(error["msg"])
    return f"{message[:1].lower()}{message[1:]}".removeprefix("value error, ")
