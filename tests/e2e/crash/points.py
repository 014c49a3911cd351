"""Wraps what storage does to files, in a process of its own: it dies, or the call fails, at a chosen operation.

A label names a point: `before fdatasync api_recovery.jsonl`, `half write events.jsonl used`, `after commit index`.
Nothing of this is in the product: the functions are replaced before `kdproxy serve` begins. What SQLite does inside
a commit is C code and is not divided further.
"""

import contextlib
import errno
import json
import os
import re
import signal
import sqlite3
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import diskcache

from kdproxy.storage import event_log, writer
from kdproxy.storage.disk import DiskStore

_BY_DESCRIPTOR = ("write", "pwrite", "fsync", "fdatasync", "ftruncate")
_BY_PATH = ("open", "rename", "replace", "link", "unlink", "mkdir")
_KIND = re.compile(rb'"kind":"(\w+)"')
_NUMBER = re.compile(r"\d{6,}")
SHORT = "short"
"""A fault: half of the bytes are written, which is no error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Where it happens, and what."""

    data_dir: str
    hits: str
    """A file that gets each label at its first time, and the one of the kill."""
    arm: str | None = None
    """Points count once this file exists; None: from the start."""
    label: str | None = None
    """Which point; None: any."""
    nth: int = 1
    """Which occurrence of it, from 1; 0: never."""
    fault: str | None = None
    """The name of an errno, or SHORT: the operation fails. None: the process dies."""
    bug: str | None = None


@dataclass(slots=True)
class Points:
    """The points of one process."""

    plan: Plan
    _seen: Counter[str] = field(default_factory=Counter)
    _count: int = 0
    _synced: dict[int, int] = field(default_factory=dict)
    """Bytes of each file that are durable, by inode: renames keep it."""
    _is_armed: bool = False
    _lock: Any = field(default_factory=threading.RLock)

    def install(self) -> None:
        """Replace the functions of this process."""
        # Phases that come by time come often: a life here is short.
        writer.INDEX_SECONDS = 0.02
        event_log.SYNC_SECONDS = 0.02
        writer.RETRY_SECONDS = event_log.RETRY_SECONDS = 0.05
        self._is_armed = self.plan.arm is None
        for file in Path(self.plan.data_dir).glob("*.jsonl"):
            found = file.stat()
            self._synced[found.st_ino] = found.st_size
        for name in _BY_DESCRIPTOR:
            if hasattr(os, name):
                setattr(os, name, self._wrapped(name, getattr(os, name), self._of_descriptor))
        for name in _BY_PATH:
            setattr(os, name, self._wrapped(name, getattr(os, name), self._of_path))
        self._wrap_index()
        report = writer.Write.report

        def reported(write: writer.Write, is_kept: bool) -> None:
            self._reach("before report")
            report(write, is_kept)
            self._reach("after report")

        writer.Write.report = reported  # type: ignore[method-assign,assignment]

    def _wrap_index(self) -> None:
        apply, transact = DiskStore.apply, diskcache.Cache.transact

        def applied(store: DiskStore, batch: Any) -> None:
            self._reach("before commit index")
            apply(store, batch)
            self._reach("after commit index")

        @contextlib.contextmanager
        def transacted(cache: Any, *arguments: Any, **named: Any) -> Iterator[None]:
            with transact(cache, *arguments, **named):
                yield
                if (fault := self._fault("commit index")) not in (None, SHORT):
                    raise sqlite3.OperationalError(f"disk I/O error ({fault})")
                self._reach("half commit index")

        DiskStore.apply = applied  # type: ignore[method-assign,assignment]
        diskcache.Cache.transact = transacted

    def _wrapped(self, name: str, real: Callable[..., Any], describe: Callable[..., str | None]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            what = describe(name, *arguments)
            if what is None:
                return real(*arguments, **named)
            label = f"{name} {what}"
            self._reach(f"before {label}")
            is_write = name in ("write", "pwrite")
            if is_write:
                half = (arguments[0], bytes(arguments[1])[: len(arguments[1]) // 2], *arguments[2:])
                self._reach(f"half {label}", lambda: real(*half))
            match self._fault(label):
                case None:
                    pass
                case "short":
                    if is_write and half[1]:
                        return real(*half)
                case fault:
                    number = getattr(errno, fault)
                    raise OSError(number, os.strerror(number))
            result = real(*arguments, **named)
            if name in ("fsync", "fdatasync"):
                synced = os.fstat(arguments[0])
                self._synced[synced.st_ino] = synced.st_size
            self._reach(f"after {label}")
            return result

        return call

    def _of_descriptor(self, name: str, descriptor: int, *arguments: Any) -> str | None:
        path = _path(descriptor)
        if not path.startswith(self.plan.data_dir):
            return None
        kind = b""
        if name == "write" and path.endswith(".jsonl"):
            found = _KIND.search(bytes(arguments[0]).rstrip(b"\n").rpartition(b"\n")[2][:200])
            kind = b" " + found[1] if found else b" part"
        return _short(path) + kind.decode()

    def _of_path(self, name: str, path: Any, *arguments: Any) -> str | None:
        if name == "open" and arguments and not arguments[0] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            return None
        return _short(os.fspath(path)) if str(path).startswith(self.plan.data_dir) else None

    def _reach(self, label: str, first: Callable[[], Any] = lambda: None) -> None:
        with self._lock:
            if not self._is_due(label) or self.plan.fault is not None:
                return
            first()
            self._note(f"killed {label}\n{json.dumps(self._synced)}")
            os.kill(os.getpid(), signal.SIGKILL)

    def _fault(self, label: str) -> str | None:
        with self._lock:
            if self.plan.fault is None or not self._is_due(label):
                return None
            self._note(f"killed {label}\n{{}}")
            return self.plan.fault

    def _is_due(self, label: str) -> bool:
        if not self._is_armed:
            self._is_armed = os.path.exists(self.plan.arm or "")
            if not self._is_armed:
                return False
        self._seen[label] += 1
        if self._seen[label] == 1 and self.plan.fault is None:
            self._note(label)
        is_other = label.startswith(("before ", "half ", "after ")) == (self.plan.fault is not None)
        if is_other or (self.plan.label is not None and self.plan.label != label):
            return False
        self._count += 1
        return self._count == self.plan.nth

    def _note(self, text: str) -> None:
        with Path(self.plan.hits).open("a") as file:
            file.write(text + "\n")


def _path(descriptor: int) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")
    except OSError:
        return ""


def _short(path: str) -> str:
    return _NUMBER.sub("N", os.path.basename(path))
