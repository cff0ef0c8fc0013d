"""The endpoints of the service."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp

from genre_lightning import __version__
from genre_lightning.errors import GenreLightningError
from genre_lightning.serving.api_page import api_page
from genre_lightning.serving.guard import Guard
from genre_lightning.serving.problems import Problem, failed, of_validation
from genre_lightning.serving.schemas import FeedbackBody, Film, FilmBody, TagBody
from genre_lightning.serving.service import Service, without_paths

_STATIC = Path(__file__).parent / "static"
_KINDS = {"app.js": "text/javascript", "style.css": "text/css", "icon.svg": "image/svg+xml"}
_REPORT_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'self'; sandbox"
_PROBLEM = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
_PROBLEMS: dict[int | str, dict[str, Any]] = {"default": {"description": "A problem document", "content": _PROBLEM}}


def create_app(service: Service) -> ASGIApp:
    """Make the application of a loaded run."""
    app = FastAPI(
        title="genre_lightning",
        version=__version__,
        summary="Genres of films from their texts",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        responses=_PROBLEMS,
    )
    _add_errors(app)
    _add_tagging(app, service)
    _add_run(app, service)
    _add_operation(app, service)
    _add_pages(app)
    return Guard(app, service)


def _add_errors(app: FastAPI) -> None:
    async def known(request: Request, error: Exception) -> Response:
        assert isinstance(error, Problem)
        return error.response()

    async def of_body(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return of_validation(error).response()

    async def of_http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        details = {
            400: "the body cannot be read: send one JSON object in UTF-8",
            404: "there is no such page: /docs lists them",
            405: "the page does not answer to this method: /docs lists them",
        }
        detail = details.get(error.status_code, "the request cannot be answered: see /docs")
        return Problem(error.status_code, "http", detail, error.headers).response()

    async def unknown(request: Request, error: Exception) -> Response:
        return failed(request.state.number).response()

    app.add_exception_handler(Exception, unknown)
    app.add_exception_handler(Problem, known)
    app.add_exception_handler(RequestValidationError, of_body)
    app.add_exception_handler(HTTPException, of_http)


def _add_tagging(app: FastAPI, service: Service) -> None:
    @app.post("/v1/tag", summary="Tag a film, or several")
    async def tag(body: TagBody, request: Request) -> dict[str, Any]:
        """Return the genres, probabilities of all genres, and thresholds of each film, in the order of the request."""
        films = body.films if body.films is not None else [Film(text=body.text, fields=body.fields)]
        if body.explain and len(films) > 1:
            raise Problem(422, "invalid-request", "explain is of one film: send one at a time")
        texts = service.check_films(films)
        request.state.texts = texts
        decision = body.as_arguments(service.options.policy)
        if body.explain:
            results = [await service.explain(texts[0], decision)]
        else:
            results = [{**one.as_dict(), "thresholds": one.thresholds} for one in await service.tag(texts, decision)]
        for one in results:
            del one["text"]
        return {"results": results, "policy": decision["policy"], "checkpoint_sha256": service.served.checkpoint}

    @app.post("/v1/similar", summary="Training films that are like a film")
    async def similar(body: FilmBody, request: Request) -> dict[str, Any]:
        """Return the nearest training films of a sample, by the cosine of the model's vectors."""
        [text] = service.check_films([body])
        request.state.texts = [text]
        compared = service.similar.done if service.similar else 0
        return {"films": await service.nearest(text, body.count), "compared": compared}

    @app.post("/v1/feedback", summary="Store which genres a film has")
    async def feedback(body: FeedbackBody, request: Request) -> dict[str, Any]:
        """Store the correction beside what the run predicts; a repeated one is stored once."""
        [text] = service.check_films([body])
        request.state.texts = [text]
        token = request.state.token
        return await service.store(body, text, token.user if token else None)


def _add_run(app: FastAPI, service: Service) -> None:
    served, options = service.served, service.options

    @app.get("/v1/model", summary="The run: genres, thresholds, inputs, metrics, data, version and checksum")
    async def model(request: Request) -> dict[str, Any]:
        token = request.state.token
        return {
            **served.description,
            "policy": options.policy,
            "user": token.user if token else None,
            "has_queue": options.queue is not None,
            "compares": options.similar > 0,
            "limits": {"films": options.limits.films, "text": options.limits.text, "body": options.limits.body},
            "report": f"/v1/report?ticket={options.ticket()}" if served.description["has_report"] else None,
        }

    @app.get("/v1/examples", summary="Films of the test split, to try")
    async def examples() -> dict[str, Any]:
        return {"films": served.examples}

    @app.get("/v1/queue", summary="Films to label next, without those that have feedback")
    async def queue() -> dict[str, Any]:
        return await service.queue()

    @app.get("/v1/report", include_in_schema=False)
    async def report(ticket: str = "") -> Response:
        if not options.is_valid(ticket[:200]):
            raise Problem(403, "old-ticket", "the address of the report has run out: open it from the page again")
        if not served.run.report.is_file():
            raise Problem(404, "no-report", "the run has no report: write it with 'genre-lightning report RUN'")
        return HTMLResponse(served.run.report.read_bytes(), headers={"Content-Security-Policy": _REPORT_POLICY})


def _add_operation(app: FastAPI, service: Service) -> None:
    @app.post("/v1/reload", summary="Load the run again; needs an admin token")
    async def reload(request: Request) -> dict[str, Any]:
        """Start workers on what RUN is now, and end the former ones after their last request."""
        token = request.state.token
        if not any(one.admin for one in service.options.tokens):
            raise Problem(403, "no-admin", "the service has no admin token: start it with one, or send it SIGHUP")
        if token is None or not token.admin:
            raise Problem(403, "not-admin", "reloading needs the admin token: send 'Authorization: Bearer TOKEN'")
        if service.reload is None:
            raise Problem(503, "no-reload", "this service does not reload: start it again")
        if service.draining:
            raise Problem(503, "not-ready", "this worker is being replaced: send it again", {"Retry-After": "1"})
        try:
            return {"reloaded": True, "checkpoint_sha256": await service.reload()}
        except GenreLightningError as error:
            raise Problem(409, "not-reloaded", without_paths(error, service.options.run)) from None

    @app.get("/health", summary="Whether the process answers")
    async def health() -> dict[str, str]:
        return {"status": "alive"}

    @app.get("/ready", summary="Whether films are tagged now")
    async def ready() -> dict[str, str]:
        if not service.is_ready:
            raise Problem(503, "not-ready", "the service is stopping, its device has failed, or its queue is full")
        return {"status": "ready"}

    @app.get("/metrics", summary="Counters of all workers for Prometheus", response_class=PlainTextResponse)
    async def metrics() -> Response:
        return PlainTextResponse(service.counters.text(), media_type="text/plain; version=0.0.4")


def _add_pages(app: FastAPI) -> None:
    page = (_STATIC / "index.html").read_bytes()
    files = {name: (_STATIC / name).read_bytes() for name in _KINDS}

    @app.get("/", include_in_schema=False)
    async def index() -> Response:
        return HTMLResponse(page)

    @app.get("/static/{name}", include_in_schema=False)
    async def static(name: str) -> Response:
        if name not in files:
            raise Problem(404, "http", "there is no such page: /docs lists them")
        return Response(files[name], media_type=_KINDS[name])

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return HTMLResponse(api_page(app.openapi()))

    def openapi() -> dict[str, Any]:
        schema = FastAPI.openapi(app)
        text, number = {"type": "string"}, {"type": "integer"}
        properties = {"type": text, "title": text, "status": number, "detail": text}
        schema.setdefault("components", {}).setdefault("schemas", {})["Problem"] = {
            "type": "object",
            "description": "RFC 9457",
            "properties": properties,
        }
        return schema

    app.openapi = openapi  # type: ignore[method-assign]
    JSONResponse(openapi())  # a mistake in the schema is found at the start
