"""A command of the drill, which ends when the drill does, however that ends: the drill holds the other end of stdin."""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading
import time

ENDS_WITHIN_S = 15.0  # as it was asked to; then for good


def _end_with_the_drill() -> None:
    while sys.stdin.buffer.read(1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(ENDS_WITHIN_S)
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=_end_with_the_drill, daemon=True).start()
    runpy.run_module("trading_ops.cli.main", run_name="__main__", alter_sys=True)
