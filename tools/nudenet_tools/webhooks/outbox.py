"""Messages that wait for delivery, with the state that they came from, in one SQLite file.

One transaction writes both. So a kill at any moment leaves either neither or both: no message is lost, and none comes
again with another id or other content.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MAX_BYTES = 64 << 20
MAX_AGE = 7 * 86_400.0  # seconds
_VERSION = 1
_TABLES = """
CREATE TABLE messages (
    number INTEGER PRIMARY KEY AUTOINCREMENT, target TEXT NOT NULL, id TEXT NOT NULL, kind TEXT NOT NULL,
    body BLOB NOT NULL, created REAL NOT NULL, attempts INTEGER NOT NULL DEFAULT 0, due REAL NOT NULL DEFAULT 0,
    UNIQUE (target, id));
CREATE TABLE states (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE dropped (kind TEXT PRIMARY KEY, count INTEGER NOT NULL);
"""


class OutboxError(OSError):
    """The file cannot be used; the message says why."""


@dataclass(frozen=True)
class Message:
    """What is to be delivered. A retry sends the same bytes. `kind` is ``start``, ``update`` or ``end``."""

    id: str
    kind: str
    body: bytes


@dataclass(frozen=True)
class Waiting:
    """A message in the outbox. `due` is when to try next, in seconds since 1970."""

    number: int
    message: Message
    attempts: int
    due: float


class Outbox:
    """The file is readable by its owner only. One process uses it at a time; its methods may be called by any thread.

    Args:
        max_bytes: of all bodies that wait. What is too much is dropped and counted: the oldest updates first, then the
            oldest of the others.
        max_age: seconds after which a message is dropped and counted.
        clock: seconds since 1970.

    Raises:
        OutboxError: the file is in use, damaged, or cannot be written.
    """

    def __init__(
        self,
        path: Path,
        max_bytes: int = MAX_BYTES,
        max_age: float = MAX_AGE,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.path, self._max_bytes, self._max_age, self._clock = path, max_bytes, max_age, clock
        self._lock = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # SQLite would create it for everybody; its journal gets the mode of the file.
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
            try:
                os.fchmod(file, 0o600)
            finally:
                os.close(file)
            self._database = sqlite3.connect(path, timeout=1.0, isolation_level=None, check_same_thread=False)
        except (OSError, sqlite3.Error) as error:
            raise OutboxError(f"{path}: {error}") from error
        try:
            self._prepare()
        except sqlite3.Error as error:
            self._database.close()
            busy = "locked" in str(error)
            advice = "another process uses it; give each its own" if busy else "move it away to begin with an empty one"
            raise OutboxError(f"{path}: {error}: {advice}") from error

    def _prepare(self) -> None:
        run = self._database.execute
        run("PRAGMA auto_vacuum = FULL")  # the file shrinks with what is delivered
        run("PRAGMA locking_mode = EXCLUSIVE")
        run("PRAGMA synchronous = FULL")
        run("BEGIN EXCLUSIVE")
        version = run("PRAGMA user_version").fetchone()[0]
        if version == 0:
            for statement in _TABLES.split(";"):
                run(statement)
            run(f"PRAGMA user_version = {_VERSION}")
        elif version != _VERSION:
            raise sqlite3.DatabaseError(f"made by another version ({version}, expected {_VERSION})")
        run("COMMIT")

    def record(self, messages: Iterable[Message], targets: Iterable[str], states: Mapping[str, Any]) -> None:
        """Store messages for each target together with the states (JSON values) after them: all or nothing.

        Raises:
            OutboxError: the disk is full, or an id was used before.
        """
        now, targets = self._clock(), tuple(targets)
        with self._lock:
            try:
                self._database.execute("BEGIN IMMEDIATE")
                self._database.executemany(
                    "INSERT INTO messages (target, id, kind, body, created) VALUES (?, ?, ?, ?, ?)",
                    [(target, one.id, one.kind, one.body, now) for one in messages for target in targets],
                )
                self._database.executemany(
                    "INSERT INTO states VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                    [(key, json.dumps(value)) for key, value in states.items()],
                )
                self._trim(now)
                self._database.execute("COMMIT")
            except sqlite3.Error as error:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                raise OutboxError(f"{self.path}: {error}") from error

    def states(self) -> dict[str, Any]:
        """The latest state under each key."""
        with self._lock:
            return {key: json.loads(value) for key, value in self._database.execute("SELECT key, value FROM states")}

    def forget(self, keys: Iterable[str]) -> None:
        """Remove states."""
        with self._lock:
            self._database.executemany("DELETE FROM states WHERE key = ?", [(key,) for key in keys])

    def first(self, target: str) -> Waiting | None:
        """The oldest message that is due, else the one that is due next; None where none waits."""
        query = """SELECT number, id, kind, body, attempts, due FROM messages WHERE target = ?
                   ORDER BY max(due, ?), number LIMIT 1"""
        with self._lock:
            row = self._database.execute(query, (target, self._clock())).fetchone()
        if row is None:
            return None
        number, name, kind, body, attempts, due = row
        return Waiting(number, Message(name, kind, bytes(body)), attempts, due)

    def delivered(self, number: int) -> None:
        """Remove a message."""
        with self._lock:
            self._database.execute("DELETE FROM messages WHERE number = ?", (number,))

    def postpone(self, number: int, due: float) -> None:
        """Count a failed attempt; the next one is due at `due`, seconds since 1970."""
        with self._lock:
            self._database.execute(
                "UPDATE messages SET attempts = attempts + 1, due = ? WHERE number = ?", (due, number)
            )
            self._trim(self._clock())

    def waiting(self, target: str | None = None) -> int:
        """How many messages wait, for one target or for all."""
        query = "SELECT count(*) FROM messages WHERE ? IS NULL OR target = ?"
        with self._lock:
            return int(self._database.execute(query, (target, target)).fetchone()[0])

    def dropped(self) -> dict[str, int]:
        """How many messages of each kind were dropped since the file was made."""
        with self._lock:
            return dict(self._database.execute("SELECT kind, count FROM dropped").fetchall())

    def close(self) -> None:
        with self._lock:
            self._database.close()

    def _trim(self, now: float) -> None:
        run = self._database.execute
        self._drop(run("SELECT number, kind FROM messages WHERE created < ?", (now - self._max_age,)).fetchall())
        excess = run("SELECT coalesce(sum(length(body)), 0) FROM messages").fetchone()[0] - self._max_bytes
        if excess <= 0:
            return
        chosen = []
        for number, kind, size in run(
            "SELECT number, kind, length(body) FROM messages ORDER BY kind <> 'update', number"
        ):
            chosen.append((number, kind))
            excess -= size
            if excess <= 0:
                break
        self._drop(chosen)

    def _drop(self, chosen: list[tuple[int, str]]) -> None:
        for number, kind in chosen:
            self._database.execute("DELETE FROM messages WHERE number = ?", (number,))
            self._database.execute(
                "INSERT INTO dropped VALUES (?, 1) ON CONFLICT (kind) DO UPDATE SET count = count + 1", (kind,)
            )
