"""`genre-lightning serve`: a run behind HTTP, with a page to try it and to collect corrections."""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from genre_lightning.bounds import Bounds, at_least
from genre_lightning.commands.arguments import CommandParser, within
from genre_lightning.config.decision import POLICIES, SHIPPED_POLICY
from genre_lightning.errors import ConfigError, DataError
from genre_lightning.files import check_output
from genre_lightning.progress import say
from genre_lightning.runs import FEEDBACK_DATABASE, open_run
from genre_lightning.serving.options import Limits, ServeOptions, read_tokens

_PACKAGES = ("fastapi", "uvicorn")


def serve(arguments: Sequence[str]) -> int:
    """Serve a run until a signal stops it."""
    parser = CommandParser(
        "serve",
        "Serves a run over HTTP: POST /v1/tag, /v1/feedback and more, listed at /docs, and a page at /. SIGTERM stops "
        "it after the requests that it has; SIGHUP loads the run again without dropping one. Tokens are read from the "
        "environment (GENRE_LIGHTNING_TOKENS, GENRE_LIGHTNING_ADMIN_TOKEN) or from files.",
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="directory of a run of fit, baseline or ensemble")
    add_serve_options(parser)
    return run_service(parser.parse_args(list(arguments)))


def add_serve_options(parser: CommandParser) -> None:
    """Add the options that do not name the run."""
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (default: 127.0.0.1, this machine)")
    parser.add_argument(
        "--port", type=within(int, Bounds(0, 65535)), default=8000, help="0: a free one (default: 8000)"
    )
    parser.add_argument("--workers", type=within(int, at_least(1, 256)), default=1, help="processes (default: 1)")
    parser.add_argument(
        "--devices", default="auto", help="such as cpu or cuda:0,cuda:1, one for each worker in turn (default: auto)"
    )
    parser.add_argument(
        "--max_batch", type=within(int, at_least(1, 4096)), default=32, help="films computed together (default: 32)"
    )
    parser.add_argument(
        "--max_wait_ms",
        type=within(float, Bounds(0, 1000)),
        default=5.0,
        help="how long a film may wait for others while several clients send (default: 5)",
    )
    parser.add_argument("--policy", choices=POLICIES, default=SHIPPED_POLICY, help=f"(default: {SHIPPED_POLICY})")
    parser.add_argument("--db", type=Path, metavar="FILE", help=f"feedback database (default: RUN/{FEEDBACK_DATABASE})")
    parser.add_argument("--queue", type=Path, metavar="FILE", help="file of 'genre-lightning queue' for the page")
    parser.add_argument(
        "--similar",
        type=within(int, at_least(0, 100_000)),
        default=500,
        help="training films that texts are compared with; 0: none (default: 500)",
    )
    parser.add_argument("--token_file", type=Path, metavar="FILE", help="a line for each client: TOKEN or NAME TOKEN")
    parser.add_argument("--admin_token_file", type=Path, metavar="FILE", help="likewise, for POST /v1/reload")
    parser.add_argument(
        "--allowed_host", action="append", default=[], metavar="NAME", help="name in the header Host; repeatable"
    )
    parser.add_argument("--log_texts", action="store_true", help="log texts too")
    limits = (
        ("body", int, at_least(100, 1 << 30), "bytes of a request"),
        ("films", int, at_least(1, 10_000), "films of a request"),
        ("text", int, at_least(1, 65_536), "characters of a text"),
        ("queue", int, at_least(1, 100_000), "films that wait, at least --limit_films; more get status 429"),
        ("seconds", float, Bounds(0.1, 3600), "of a request"),
    )
    for name, kind, bounds, about in limits:
        default = getattr(Limits, name)
        parser.add_argument(
            f"--limit_{name}", type=within(kind, bounds), default=default, metavar="N", help=f"{about} ({default:,})"
        )


def run_service(options: argparse.Namespace) -> int:
    """Check the options, then serve."""
    require_packages()
    service = _read(options)
    from genre_lightning.serving.supervisor import Supervisor, listen

    with listen(service.host, service.port) as listener:
        port = listener.getsockname()[1]
        host = f"[{service.host}]" if ":" in service.host else service.host

        def announce() -> None:
            reach = "only this machine reaches it; --host 0.0.0.0 opens it"
            if not service.is_local:
                reach = "the network reaches it" + ("" if service.needs_token else ", and no token is asked for")
            say(f"serving {options.run} at http://{host}:{port} ({reach}); Ctrl-C stops it")

        return Supervisor(service, listener, announce).run()


def require_packages() -> None:
    """Refuse to start without the packages of the extra.

    Raises:
        ConfigError: With the fix.
    """
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(f"serve needs {', '.join(missing)}: run \"pip install 'genre-lightning[serve]'\"")


def _read(options: argparse.Namespace) -> ServeOptions:
    run = open_run(options.run)
    if run.status != "finished":
        raise ConfigError(f"{options.run} has not finished ({run.status}): {run.again}")
    if options.limit_queue < options.limit_films:
        raise ConfigError(
            f"--limit_queue is {options.limit_queue}, and one request may have {options.limit_films} films: "
            "raise it, or lower --limit_films"
        )
    # a link is followed once: a reload of another run keeps the corrections together
    database = options.db or options.run.resolve() / FEEDBACK_DATABASE
    check_output(database, "--db")
    if options.queue and not options.queue.is_file():
        raise DataError(f"--queue {options.queue} does not exist: write it with 'genre-lightning queue'")
    devices = tuple(name.strip() for name in options.devices.split(",") if name.strip())
    if not devices:
        raise ConfigError(f"--devices is {options.devices!r}: give auto, cpu, or names such as cuda:0,cuda:1")
    limits = {one.name: getattr(options, f"limit_{one.name}") for one in fields(Limits)}
    return ServeOptions(
        # not resolved: a link that is moved to another run is followed by the next reload
        run=options.run.absolute(),
        host=options.host,
        port=options.port,
        workers=options.workers,
        devices=devices,
        max_batch=options.max_batch,
        max_wait_ms=options.max_wait_ms,
        policy=options.policy,
        database=database.absolute(),
        queue=options.queue.absolute() if options.queue else None,
        similar=options.similar,
        allowed_hosts=tuple(name.lower() for name in options.allowed_host),
        log_texts=options.log_texts,
        limits=Limits(**limits),
        tokens=read_tokens(options.token_file, options.admin_token_file),
    )
