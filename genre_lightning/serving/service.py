"""What the endpoints do: tag, explain, compare and store, with one loaded run."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from genre_lightning.errors import ConfigError, DataError, GenreLightningError, SaveError, one_line
from genre_lightning.failures import machine_error
from genre_lightning.inference.tagger import TaggedText, Text, has_content
from genre_lightning.learning.corrections import correction
from genre_lightning.learning.feedback_files import UnknownGenreError, read_names
from genre_lightning.learning.store import Added, Feedback, FeedbackStore
from genre_lightning.serving.batching import Batcher, QueueFullError
from genre_lightning.serving.counters import Counters
from genre_lightning.serving.examples import add_inputs
from genre_lightning.serving.logs import failure, log
from genre_lightning.serving.options import ServeOptions
from genre_lightning.serving.problems import Problem
from genre_lightning.serving.queue_view import queue_rows
from genre_lightning.serving.schemas import FeedbackBody, Film, film_text
from genre_lightning.serving.served import ServedRun
from genre_lightning.serving.similar import SimilarFilms, training_films

_MOST_SIDE_CALLS = 4
"""Explanations and comparisons that wait: each holds up the tags of all others."""
_RETRY_SECONDS = 1
_SECONDS_BETWEEN_GAUGES = 5.0
_ABSOLUTE_PATH = re.compile(r"(?<![\w:/])/(?:[^\s:'\",()]+/)+")
_BROKEN = ("cuda error", "device-side assert", "cublas", "cudnn", "hip error")
"""In messages of a GPU that is gone or whose context is spoilt: only another process can use it again."""


class Service:
    """A loaded run with its queue.

    Args:
        options: Of the service.
        served: The run.
        counters: Of this worker.
        reload: Has all workers load the run again; raises a GenreLightningError if it cannot be used. None without.
        broken: Called when the device has failed for good.
    """

    def __init__(
        self,
        options: ServeOptions,
        served: ServedRun,
        counters: Counters | None = None,
        reload: Callable[[], Coroutine[Any, Any, str]] | None = None,
        broken: Callable[[], None] = lambda: None,
    ) -> None:
        self.options, self.served, self.reload = options, served, reload
        self.counters = counters or Counters()
        self.batcher: Batcher[Text, TaggedText] = Batcher(
            self._compute,
            max_batch=options.max_batch,
            max_tokens=served.batch_tokens,
            max_wait=options.max_wait_ms / 1000,
            max_queue=options.limits.queue,
            counters=self.counters,
        )
        self.similar: SimilarFilms | None = None
        self.draining = self.failed = False
        self.examples_done = asyncio.Event()
        self._broken = broken
        self._side_calls = 0
        self._storage = ThreadPoolExecutor(1, thread_name_prefix="storage")
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Start what runs beside the requests: gauges, the examples' inputs, and the vectors of training films."""
        beside = (self._measure(), self._complete_examples(), self._compare_training_films())
        self._tasks = [asyncio.create_task(one) for one in beside]

    def close(self) -> None:
        """End the threads, after the requests."""
        for task in self._tasks:
            task.cancel()
        self.batcher.thread.shutdown(wait=False, cancel_futures=True)
        self._storage.shutdown(wait=False, cancel_futures=True)

    @property
    def is_ready(self) -> bool:
        """Whether requests are answered."""
        return not (self.draining or self.failed) and len(self.batcher) < self.options.limits.queue

    def check_films(self, films: Sequence[Film]) -> list[Text]:
        """Refuse films that cannot be tagged, before any is queued.

        Raises:
            Problem: With the fix.
        """
        limits = self.options.limits
        if len(films) > limits.films:
            raise Problem(422, "too-many-films", f"{len(films)} films: send at most {limits.films} in a request")
        texts = []
        for number, film in enumerate(films, start=1):
            name = "the film" if len(films) == 1 else f"film {number}"
            text = film_text(film)
            try:
                cells = self.served.tagger.cells(text)
            except DataError as error:
                raise Problem(422, "unknown-column", f"{name}: {error}") from None
            longest = max(map(_characters, film.columns.values()), default=0)
            if longest > limits.text:
                raise Problem(
                    422, "text-too-long", f"{name} has {longest:,} characters: send at most {limits.text:,}"
                )  # fmt: skip
            if not has_content(cells):
                raise Problem(422, "empty-text", f"{name} has no text: give its overview")
            texts.append(text)
        return texts

    async def tag(self, texts: Sequence[Text], decision: dict[str, Any]) -> list[TaggedText]:
        """Tag films.

        Args:
            texts: See `check_films`.
            decision: Arguments of `Tagger.decide`.

        Raises:
            Problem: The queue is full, an option is impossible, or the device has failed.
        """
        tagger = self.served.tagger
        try:
            tagged = await self.batcher.submit([(text, self.served.tokens(text)) for text in texts])
            return [tagger.decide(one, **decision) for one in tagged]
        except QueueFullError:
            raise self._too_many() from None
        except (ConfigError, DataError) as error:
            raise Problem(422, "invalid-request", without_paths(error, self.served.run.path)) from None

    async def explain(self, text: Text, decision: dict[str, Any]) -> dict[str, Any]:
        """Explain the genres of a film; see `tag`."""
        return await self._beside(lambda: self.served.explain(text, decision))

    async def nearest(self, text: Text, count: int) -> list[dict[str, Any]]:
        """Find training films like one; nothing as long as none is compared."""
        if (similar := self.similar) is None:
            return []
        return await self._beside(lambda: similar.nearest(text, count))

    async def _beside(self, function: Callable[[], Any]) -> Any:
        if self._side_calls >= _MOST_SIDE_CALLS:
            raise self._too_many()
        self._side_calls += 1
        try:
            return await self.batcher.call(function)
        except (ConfigError, DataError) as error:
            raise Problem(422, "invalid-request", without_paths(error, self.served.run.path)) from None
        except GenreLightningError as error:
            log("not explained or compared", reason=one_line(error))
            raise Problem(503, "run-changed", without_paths(error, self.served.run.path)) from None
        finally:
            self._side_calls -= 1

    def _too_many(self) -> Problem:
        detail = f"too many films wait for the model: send it again in {_RETRY_SECONDS} s"
        return Problem(429, "queue-full", detail, {"Retry-After": str(_RETRY_SECONDS)})

    def _compute(self, texts: Sequence[Text]) -> Sequence[TaggedText | Exception]:
        try:
            return self.served.tag(texts)
        except Exception as error:
            log("compute failed", films=len(texts), **failure(error))
            if isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in _BROKEN):
                self.failed = True
                self._broken()
                return [Problem(503, "device-failed", "the model's device has failed: send it again later")] * len(
                    texts
                )
            if machine_error(error):
                detail = "the machine has not enough memory for these films: send fewer, or send them again later"
                return [Problem(503, "out-of-memory", detail, {"Retry-After": str(_RETRY_SECONDS)})] * len(texts)
            raise

    async def store(self, body: FeedbackBody, text: Text, user: str | None) -> dict[str, Any]:
        """Store a correction beside what the run predicts.

        Args:
            body: The correction.
            text: Of its film; see `check_films`.
            user: Name that the token has; None takes that of the body.

        Raises:
            Problem: It cannot be stored.
        """
        name = user or (body.user or "").strip()
        if not name:
            raise Problem(422, "no-user", "the correction has no user: give your name as user")
        try:
            genres = read_names(body.genres, self.served.genres)
        except UnknownGenreError as error:
            raise Problem(422, "unknown-genre", f"{error}: correct it") from None
        [tagged] = await self.tag([text], {"policy": self.options.policy})
        row = correction(
            self.served.tagger, text, tagged, genres, user=name, source="http", run=str(self.served.run.path),
            film_id=body.film, title=body.title,
        )  # fmt: skip
        if problems := row.problems():
            raise Problem(422, "invalid-request", f"{problems[0]}: correct that")
        added = await asyncio.get_running_loop().run_in_executor(self._storage, self._add, row)
        self.counters.add("feedback", added.stored)
        return {
            "stored": bool(added.stored),
            "genres": genres,
            "predicted": tagged.names,
            "conflicts": len(added.conflicts),
        }

    def _add(self, row: Feedback) -> Added:
        try:
            with FeedbackStore(self.options.database, write=True) as store:
                return store.add([row], self.served.genres)
        except GenreLightningError as error:
            log("feedback not stored", reason=one_line(error))
            if isinstance(error, SaveError) and "locked" not in str(error):
                detail = "the disk of the feedback database is full or fails: free space there; tagging continues"
                raise Problem(507, "storage-full", detail) from None
            detail = "the feedback database cannot be written: see the log of the service; tagging continues"
            raise Problem(503, "storage-failed", detail) from None

    async def queue(self) -> dict[str, Any]:
        """Read the films to label, without those that have feedback."""
        if self.options.queue is None:
            raise Problem(404, "no-queue", "the service has no queue of films: start it with --queue FILE")
        path = self.options.queue
        try:
            return await asyncio.get_running_loop().run_in_executor(
                self._storage, queue_rows, path, self.options.database
            )
        except GenreLightningError as error:
            log("queue not read", reason=one_line(error))
            raise Problem(503, "queue-failed", without_paths(error, path)) from None

    async def _measure(self) -> None:
        while True:
            self.counters.put("resident_bytes", resident_bytes())
            await asyncio.sleep(_SECONDS_BETWEEN_GAUGES)

    async def _complete_examples(self) -> None:
        try:
            await asyncio.to_thread(add_inputs, self.served)
        except (GenreLightningError, OSError) as error:
            log("examples without inputs", reason=one_line(error))
        finally:
            self.examples_done.set()

    async def _compare_training_films(self) -> None:
        if not self.options.similar:
            return
        try:
            films = await asyncio.to_thread(training_films, self.served, self.options.similar)
            similar = SimilarFilms(self.served, films)
            more = True
            while more:
                while len(self.batcher):  # films that wait come first
                    await asyncio.sleep(0.01)
                more = await self.batcher.call(similar.step)
                self.similar = similar
        except (GenreLightningError, OSError) as error:
            log("no similar films", reason=one_line(error))


def _characters(cell: object) -> int:
    if isinstance(cell, list):
        return sum(map(_characters, cell))
    return len(cell) if isinstance(cell, str) else 1


def resident_bytes() -> int:
    """Return the memory of this process; 0 if the system has no /proc."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def without_paths(message: object, *paths: Path) -> str:
    """Return a message whose paths are shortened to their last part: a client learns nothing of the machine.

    Args:
        message: For the client.
        paths: That may have spaces.
    """
    text = one_line(message)
    for path in paths:
        for form in (path, path.absolute(), path.resolve()):
            if str(form.parent) not in (".", "/"):
                text = text.replace(f"{form.parent}/", "")
    return _ABSOLUTE_PATH.sub("", text)
