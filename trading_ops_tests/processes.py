"""How does a test run a command as a process of its own that does not import the same libraries all over again?

A server, one for each worker, has imported what the commands import of other people's and nothing of ours. It forks a
process for each command, which runs the script that a shell would find, in its own folder and environment.
"""

import atexit
import multiprocessing
import os
import runpy
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

BIN = Path(sys.executable).parent
LIBRARIES = [
    "dagster", "dagster._cli", "dagster._daemon", "dagster._core.storage.sqlite_storage", "alembic.config", "pandas",
    "numba", "talib", "scipy.stats", "pyarrow.parquet", "matplotlib.pyplot", "matplotlib.backends.backend_agg", "ccxt",
    "httpx", "optuna", "plotly.graph_objects", "pymongo", "rich.console", "rich.progress", "typer", "uvicorn",
]  # fmt: skip


def run(
    line: list[str], folder: Path, environment: Mapping[str, str], timeout_s: float
) -> subprocess.CompletedProcess[str]:
    """`subprocess.run` for the scripts beside this Python; nothing is read from stdin."""
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(LIBRARIES)  # read when the first process starts the server
    with TemporaryDirectory() as said:
        out, err = Path(said, "out"), Path(said, "err")
        process = processes.Process(target=_become, args=(line, folder, dict(environment), out, err))
        process.start()
        process.join(timeout_s)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(line, timeout_s, out.read_bytes(), err.read_bytes())
        return subprocess.CompletedProcess(line, process.exitcode, out.read_text(), err.read_text())


def _become(line: list[str], folder: Path, environment: dict[str, str], out: Path, err: Path) -> None:
    for number, file in ((1, out), (2, err)):
        os.dup2(os.open(file, os.O_CREAT | os.O_WRONLY | os.O_APPEND), number)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.dont_write_bytecode = "PYTHONDONTWRITEBYTECODE" in environment
    sys.argv = [str(BIN / line[0]), *line[1:]]
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    finally:
        atexit._run_exitfuncs()  # a forked process leaves them out
