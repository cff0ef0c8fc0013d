"""What every request passes: who may ask, how much may be sent, how long it may take, what is counted and logged."""

from __future__ import annotations

import asyncio
import re
import time
from typing import Any
from uuid import uuid4

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from genre_lightning.serving.logs import failure, log
from genre_lightning.serving.options import LOOPBACK
from genre_lightning.serving.problems import Problem, failed
from genre_lightning.serving.service import Service

PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; frame-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)
_PORT = re.compile(r":\d*$")
_OPEN = {"/", "/health", "/ready", "/docs", "/openapi.json"}
"""Paths that need no token; neither do the page's own files and the report, whose address is signed."""
_HEADERS = {
    "Content-Security-Policy": PAGE_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Guard:
    """ASGI middleware around the whole application.

    Args:
        app: The application.
        service: Whose options and counters are used.
    """

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self.app, self.service, self.options = app, service, service.options

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            return
        answer = _Answer(send, uuid4().hex[:16], self.service)
        scope.setdefault("state", {})["number"] = answer.number
        try:
            # a reload takes as long as its run takes to load
            async with asyncio.timeout(None if scope["path"] == "/v1/reload" else self.options.limits.seconds):
                self._check(scope)
                body = await self._body(scope, receive)
                await self.app(scope, _replay(body, receive), answer.send)
        except Problem as problem:
            await answer.fail(problem, scope)
        except TimeoutError:
            seconds = self.options.limits.seconds
            detail = f"no answer within {seconds:g} s: send it again later, or fewer films at a time"
            await answer.fail(Problem(503, "timeout", detail, {"Retry-After": "1"}), scope)
        except Exception as error:
            log("failed", request=answer.number, **failure(error))
            await answer.fail(failed(answer.number), scope)
        finally:
            seconds = time.perf_counter() - answer.started
            self.service.counters.request(scope["path"], answer.status, seconds)
            shown = {"method": scope["method"], "path": scope["path"][:80], "status": answer.status}
            texts = {"texts": scope["state"]["texts"]} if self.options.log_texts and "texts" in scope["state"] else {}
            log("request", request=answer.number, **shown, ms=round(seconds * 1000, 1), **texts)

    def _check(self, scope: Scope) -> None:
        headers, path = Headers(scope=scope), scope["path"]
        host = _PORT.sub("", headers.get("host", ""))
        named = self.options.allowed_hosts
        allowed = (*LOOPBACK, "[::1]", self.options.host, *named)
        # a page of another site may have its name lead to this machine
        if (self.options.is_local or named) and host.lower() not in allowed and "*" not in named:
            raise Problem(403, "wrong-host", "the header Host names another machine: allow it with --allowed_host NAME")
        token = self.options.token_of(headers.get("authorization"))
        scope["state"]["token"] = token
        is_open = path in _OPEN or path.startswith("/static/") or path == "/v1/report"
        if self.options.needs_token and token is None and not is_open:
            detail = "the bearer token is missing or wrong: send 'Authorization: Bearer TOKEN'"
            raise Problem(401, "unauthorized", detail, {"WWW-Authenticate": "Bearer"})
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        # what pages of other sites can send without being asked is never JSON
        if scope["method"] == "POST" and kind != "application/json":
            raise Problem(415, "not-json", "the body is not JSON: send it with 'Content-Type: application/json'")

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        limit = self.options.limits.body
        too_large = Problem(
            413, "too-large", f"the body has more than {limit:,} bytes: send fewer films", {"Connection": "close"}
        )
        length = Headers(scope=scope).get("content-length", "0")
        if length.isdigit() and int(length[:20]) > limit:
            raise too_large
        parts, total = [], 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Problem(400, "cut-off", "the body is incomplete: send it whole")
            parts.append(message.get("body", b""))
            total += len(parts[-1])
            if total > limit:
                raise too_large
            if not message.get("more_body"):
                return b"".join(parts)


class _Answer:
    """What is sent back, with the headers that every answer has."""

    def __init__(self, send: Send, number: str, service: Service) -> None:
        self._send, self.number, self._service = send, number, service
        self.started = time.perf_counter()
        self.status = 0

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            if self.status:
                return
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            for name, value in {**_HEADERS, "X-Request-Id": self.number}.items():
                headers.setdefault(name, value)
            if self._service.draining:
                headers["Connection"] = "close"
        await self._send(message)

    async def fail(self, problem: Problem, scope: Scope) -> None:
        if not self.status:
            await problem.response()(scope, _nothing, self.send)


async def _nothing() -> Message:
    return {"type": "http.disconnect"}


def _replay(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that gives the whole body, then what comes behind it."""
    messages: list[dict[str, Any]] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return messages.pop() if messages else await receive()

    return replay
