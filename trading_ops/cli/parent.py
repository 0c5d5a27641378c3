"""How does a command end with the process that started it, even one that was killed and cannot say so?"""

from __future__ import annotations

import os
import signal
import threading
from typing import Annotated

import typer

PATIENCE_S = 15.0  # for an orderly end

UntilStdinEnds = Annotated[bool, typer.Option("--until-stdin-ends", hidden=True, help="End when stdin is closed.")]


def end_with_stdin() -> None:
    """From now on the end of stdin ends this process: a pipe that only its parent holds closes when that one dies."""
    threading.Thread(target=_wait_and_end, daemon=True).start()


def _wait_and_end() -> None:
    while os.read(0, 4096):  # unbuffered: a buffer's lock must not be held while the interpreter ends
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    threading.Event().wait(PATIENCE_S)
    os._exit(1)
