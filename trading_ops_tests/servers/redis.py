"""How do the tests get a real Redis of their own?"""

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

START_S = 30


@contextmanager
def redis_server(folder: Path, *options: str) -> Iterator[int]:
    """A `redis-server` on 127.0.0.1 that keeps nothing; yields its port. Where there is none the test is skipped."""
    binary = shutil.which("redis-server")
    if binary is None:
        pytest.skip("no redis-server: apt-get install redis-server")
    for _ in range(3):
        port = _free_port()
        command = [binary, "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--dir", str(folder), *options]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT) as server:
            try:
                if _listens(server, port):
                    yield port
                    return
            finally:
                server.kill()
    raise ConnectionError("redis-server did not start")


def _listens(server: subprocess.Popen[bytes], port: int) -> bool:
    """Whether it is up; another process may have taken the port in between."""
    until = time.monotonic() + START_S
    while time.monotonic() < until and server.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return True
        except OSError:
            time.sleep(0.01)
    return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
