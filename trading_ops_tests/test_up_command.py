"""Do the UI and the watchdog run and end together, whatever happens to one of them?"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

ROLE = """
import os, signal, subprocess, sys, time
folder, name, ends = sys.argv[1:]
if ends == "at once":
    sys.exit(7)
helper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])  # as the UI has its daemon
for number in (signal.SIGINT, signal.SIGTERM):
    if ends == "never":
        signal.signal(number, signal.SIG_IGN)
with open(f"{folder}/{name}", "a") as file:
    file.write(f"{os.getpid()} {helper.pid}\\n")
try:
    time.sleep(600)
except KeyboardInterrupt:
    with open(f"{folder}/{name}.interrupts", "a") as file:
        file.write("once\\n")
"""
TOGETHER = """
import sys
from trading_ops.cli import up
import typer
role, folder, ends, settled_s, pause_s = sys.argv[1:]
up.PATIENCE_S = 2.0
line = lambda name, ends: [sys.executable, "-c", role, folder, name, ends]
ui, watchdog = up.Child("the UI", line("ui", ends)), up.Child("the watchdog", line("watchdog", "politely"))
if ends == "signalled":
    import os, signal, subprocess
    class Popen(subprocess.Popen):
        # a signal comes when the child is there and nobody has kept it yet
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            print(self.pid, file=sys.stderr, flush=True)
            os.kill(os.getpid(), signal.SIGTERM)
    up.subprocess.Popen = Popen
try:
    up.run_together(ui, watchdog, pause_s=float(pause_s), settled_s=float(settled_s))
except typer.Exit as end:
    sys.exit(end.exit_code)
"""


@contextmanager
def together(
    folder: Path, ends: str = "politely", settled_s: str = "60", pause_s: str = "0.1"
) -> Iterator[subprocess.Popen[str]]:
    """Both, started as a script starts something in the background: with SIGINT ignored."""
    process = subprocess.Popen(
        [sys.executable, "-c", TOGETHER, ROLE, str(folder), ends, settled_s, pause_s],
        stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    )  # fmt: skip
    try:
        yield process
    finally:
        for name in ("ui", "watchdog"):
            for pid in [pid for start in starts(folder, name) for pid in start]:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        process.kill()
        process.wait()


def starts(folder: Path, name: str) -> list[list[int]]:
    """The processes of each start of one of the two, as far as all of it is written down."""
    with suppress(FileNotFoundError):
        return [[int(pid) for pid in line.split()] for line in (folder / name).read_text().splitlines()]
    return []


def until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + 300
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def alive(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    return False


def both_run(folder: Path) -> bool:
    return bool(starts(folder, "ui") and starts(folder, "watchdog"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_signal_ends_both_with_all_that_they_started(tmp_path, number):
    with together(tmp_path) as process:
        until(lambda: both_run(tmp_path))
        process.send_signal(number)
        assert process.wait(timeout=300) == 0
        assert not any(alive(pid) for name in ("ui", "watchdog") for pid in starts(tmp_path, name)[0])
    assert (tmp_path / "ui.interrupts").read_text() == "once\n"


def test_a_ui_that_does_not_want_to_end_is_ended_all_the_same(tmp_path):
    with together(tmp_path, ends="never") as process:
        until(lambda: both_run(tmp_path))
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=300) == 0
        assert not any(alive(pid) for pid in starts(tmp_path, "ui")[0])


def test_a_watchdog_that_was_killed_is_started_again_and_the_ui_goes_on(tmp_path):
    with together(tmp_path) as process:
        until(lambda: both_run(tmp_path))
        killed, left_behind = starts(tmp_path, "watchdog")[0]
        os.kill(killed, signal.SIGKILL)
        until(lambda: len(starts(tmp_path, "watchdog")) == 2)
        assert not alive(left_behind)
        assert len(starts(tmp_path, "ui")) == 1
        assert process.poll() is None


def test_a_ui_that_cannot_start_ends_both_with_its_exit_code(tmp_path):
    with together(tmp_path, ends="at once") as process:
        assert process.wait(timeout=300) == 7


def test_a_ui_that_ran_and_died_is_started_again(tmp_path):
    with together(tmp_path, settled_s="0") as process:
        until(lambda: both_run(tmp_path))
        os.kill(starts(tmp_path, "ui")[0][0], signal.SIGKILL)
        until(lambda: len(starts(tmp_path, "ui")) == 2)
        assert process.poll() is None


def test_a_ui_that_dies_again_and_again_does_not_take_the_watchdog_with_it(tmp_path):
    with together(tmp_path, settled_s="2") as process:
        until(lambda: both_run(tmp_path))
        time.sleep(2.5)  # it has settled
        for times in (1, 2, 3):
            os.kill(starts(tmp_path, "ui")[-1][0], signal.SIGKILL)
            until(lambda times=times: len(starts(tmp_path, "ui")) == times + 1)
        assert len(starts(tmp_path, "watchdog")) == 1
        assert process.poll() is None


def test_a_signal_just_after_a_child_was_started_loses_no_child(tmp_path):
    with together(tmp_path, ends="signalled") as process:
        _, said = process.communicate(timeout=300)
    assert process.returncode == 0
    pids = [int(line) for line in said.splitlines() if line.isdecimal()]
    assert pids
    assert not any(alive(pid) for pid in pids)


def test_the_pause_before_one_is_started_again_holds_up_neither_the_other_nor_the_end(tmp_path):
    """The watchdog is to wait for ten minutes; the UI, which cannot start, ends all of it meanwhile."""
    with together(tmp_path, pause_s="600") as process:
        until(lambda: both_run(tmp_path))
        os.kill(starts(tmp_path, "watchdog")[0][0], signal.SIGKILL)
        assert process.stderr is not None
        assert process.stderr.readline().startswith("the watchdog ended by itself (exit code -9)")
        os.kill(starts(tmp_path, "ui")[0][0], signal.SIGKILL)
        assert process.wait(timeout=300) == 1
