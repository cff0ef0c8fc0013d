"""A small double of W&B's server on loopback: runs, their history, and a switch that has it refuse to take any."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_PROJECT = {"id": "P", "name": "genre_lightning", "entity": {"id": "E", "name": "me"}}


class WandbDouble:
    """What the server has.

    Attributes:
        history: The lines of the run's history.
        refusing: Answer every line of history with an error.
        authorizations: Headers of that name that came.
        inits: How often the run was started.
    """

    def __init__(self) -> None:
        self.history: list[str] = []
        self.refusing = False
        self.authorizations: set[str] = set()
        self.inits = 0
        self.url = ""
        self.config = "{}"
        self.ids: set[str] = set()

    def answer(self, path: str, body: bytes) -> object:
        """The answer to a request; None is an error of the server."""
        if path == "/graphql":
            asked = json.loads(body)
            name = asked["query"].split("(")[0].split("{")[0].split()[-1]
            return {"data": getattr(self, f"_{name}", lambda _: None)(asked["variables"])}
        if path.endswith("/file_stream"):
            if self.refusing:
                return None
            files = json.loads(body).get("files") or {}
            lines = files.get("wandb-history.jsonl")
            if lines:
                assert lines["offset"] <= len(self.history)
                self.history[lines["offset"] :] = lines["content"]
        return {}

    def _Viewer(self, _: dict) -> object:
        return {"viewer": {"id": "U", "entity": "me", "flags": "{}", "teams": {"edges": []}}}

    def _RunResumeStatus(self, asked: dict) -> object:
        return {"model": {**_PROJECT, "bucket": self._bucket(asked["name"]) if self.inits else None}}

    def _UpsertBucket(self, asked: dict) -> object:
        if asked.get("name"):
            self.ids.add(asked["name"])
            self.inits += asked.get("state") is None
        self.config = asked.get("config") or self.config
        return {"upsertBucket": {"bucket": self._bucket(asked.get("name") or "x"), "inserted": self.inits == 1}}

    def _CreateRunFiles(self, asked: dict) -> object:
        files = [{"name": name, "uploadUrl": f"{self.url}/upload/{name}"} for name in asked["files"]]
        return {"createRunFiles": {"runID": "B", "uploadHeaders": [], "files": files}}

    def _bucket(self, name: str) -> object:
        return {
            "id": "B", "name": name, "displayName": name, "description": "", "sweepName": None, "project": _PROJECT,
            "config": self.config, "summaryMetrics": "{}", "logLineCount": 0, "eventsLineCount": 0, "eventsTail": "[]",
            "historyLineCount": len(self.history), "historyTail": json.dumps(self.history[-1:]), "tags": [],
            "notes": None, "wandbConfig": '{"t": 1}',
        }  # fmt: skip

    def rows(self) -> list[dict]:
        """The history, parsed."""
        return [json.loads(line) for line in self.history]


@contextmanager
def wandb_double() -> Iterator[WandbDouble]:
    """The double at work."""
    double = WandbDouble()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            if self.headers.get("Authorization"):
                double.authorizations.add(self.headers["Authorization"])
            answer = double.answer(self.path, body)
            content = json.dumps(answer).encode()
            self.send_response(503 if answer is None else 200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_PUT = do_POST

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    double.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield double
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
