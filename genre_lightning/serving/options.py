"""What a service is started with; read without torch and without the web framework."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import os
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from genre_lightning.config.decision import SHIPPED_POLICY, Policy
from genre_lightning.errors import ConfigError, one_line
from genre_lightning.signing import signature

LOOPBACK = ("127.0.0.1", "localhost", "::1")
TOKENS = "GENRE_LIGHTNING_TOKENS"
ADMIN_TOKEN = "GENRE_LIGHTNING_ADMIN_TOKEN"
_SHORTEST_TOKEN = 16
_LARGEST_TOKEN_FILE = 1 << 20


@dataclass(frozen=True)
class Limits:
    """What a client may send, and how long it may take.

    Attributes:
        body: Bytes of a request.
        films: Of a request.
        text: Characters of a text.
        queue: Films that wait for the model; further requests get 429.
        seconds: Of a request, from its first byte to its answer.
    """

    body: int = 1_000_000
    films: int = 64
    text: int = 65_536
    queue: int = 256
    seconds: float = 30.0


@dataclass(frozen=True)
class Token:
    """A bearer token, by its digest.

    Attributes:
        digest: SHA-256 of the token.
        user: Name under which its feedback is stored; None if each correction names one.
        admin: Whether it may reload the run.
    """

    digest: bytes
    user: str | None
    admin: bool = False


@dataclass(frozen=True)
class ServeOptions:
    """A service.

    Attributes:
        run: Directory of the run; read again at each reload.
        host: Address to listen at.
        port: 0 takes a free one.
        workers: Processes, each with the run in its memory.
        devices: One for each worker in turn; "auto" gives each a GPU, if there is one.
        max_batch: Films computed together at most.
        max_wait_ms: Milliseconds that a film may wait for others while several clients send.
        policy: Thresholds that decide unless a request names others.
        database: Of the feedback.
        queue: A file of `genre-lightning queue` for the page to walk through; None without.
        similar: Training films that are compared with a text; 0 for none.
        allowed_hosts: Names in the header Host, beside those of this machine; "*" for any. Empty allows any where the
            network reaches the service.
        log_texts: Whether texts are logged.
        limits: Of requests.
        tokens: That requests must carry one of; empty for none.
        secret: Signs the address of the report, which a browser opens without a token.
    """

    run: Path
    host: str = "127.0.0.1"
    port: int = 8000
    workers: int = 1
    devices: tuple[str, ...] = ("auto",)
    max_batch: int = 32
    max_wait_ms: float = 5.0
    policy: Policy = SHIPPED_POLICY
    database: Path = Path("feedback.db")
    queue: Path | None = None
    similar: int = 0
    allowed_hosts: tuple[str, ...] = ()
    log_texts: bool = False
    limits: Limits = Limits()
    tokens: tuple[Token, ...] = ()
    secret: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)

    @property
    def is_local(self) -> bool:
        """Whether only this machine reaches it."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def needs_token(self) -> bool:
        """Whether every request needs a token."""
        return any(not token.admin for token in self.tokens)

    def ticket(self, seconds: int = 600) -> str:
        """Sign a moment until which the report may be opened."""
        until = str(int(time.time()) + seconds)
        return f"{until}.{signature(self.secret, until.encode())}"

    def is_valid(self, ticket: str) -> bool:
        """Return whether a ticket is one of this service's and has not run out."""
        until, _, signed = ticket.partition(".")
        known = hmac.compare_digest(signature(self.secret, until.encode()), signed.encode("ascii", "replace").decode())
        return known and int(until) >= time.time()

    def token_of(self, authorization: str | None) -> Token | None:
        """Find the token that the header Authorization carries; None for a wrong or missing one."""
        scheme, _, given = (authorization or "").partition(" ")
        digest = hashlib.sha256(given.strip().encode("utf-8", errors="replace")).digest()
        # all are compared, so that the time does not show which one is near
        found = [token for token in self.tokens if hmac.compare_digest(token.digest, digest)]
        return found[0] if found and scheme.lower() == "bearer" else None


def read_tokens(
    token_file: Path | None, admin_token_file: Path | None, environment: Mapping[str, str] = os.environ
) -> tuple[Token, ...]:
    """Read the tokens of clients and administrators, from files or the environment.

    Args:
        token_file: A line for each token, "TOKEN" or "NAME TOKEN"; None takes those of the environment.
        admin_token_file: Likewise, for tokens that may reload the run.
        environment: Of the process.

    Raises:
        ConfigError: A file cannot be read, or a token is too short.
    """
    tokens: list[Token] = []
    for file, option, variable, admin in (
        (admin_token_file, "--admin_token_file", ADMIN_TOKEN, True),
        (token_file, "--token_file", TOKENS, False),
    ):
        place = f"{option} {file}" if file else variable
        text = _content(file, option) if file else environment.get(variable, "").replace(",", "\n")
        lines = [line.split() for line in text.splitlines() if line.strip() and not line.startswith("#")]
        for number, parts in enumerate(lines, start=1):
            if len(parts) > 2 or len(parts[-1]) < _SHORTEST_TOKEN or not parts[-1].isascii():
                raise ConfigError(
                    f"{place}: token {number} is not 'TOKEN' or 'NAME TOKEN' with at least {_SHORTEST_TOKEN} ASCII "
                    "characters: make one with 'openssl rand -hex 24'"
                )
            user = parts[0] if len(parts) == 2 else None
            tokens.append(Token(hashlib.sha256(parts[-1].encode()).digest(), user, admin))
        if file and not lines:
            raise ConfigError(f"{place} has no token: write one line for each, or leave the option out")
    return tuple(tokens)


def _content(file: Path, option: str) -> str:
    try:
        with file.open("rb") as opened:
            return opened.read(_LARGEST_TOKEN_FILE).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{option} {file} cannot be read ({one_line(error)}): fix that") from None
