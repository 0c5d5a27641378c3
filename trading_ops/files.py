"""How does a file get onto the disk whole, or not at all?"""

import os
import tempfile
from pathlib import Path

UNFINISHED = ".part"  # the end of a name: a file being written, or left behind by a killed writer; never read


class FileNotWritten(OSError):
    """A file that cannot be written; the message names it and why."""


def write_whole(path: Path, content: bytes) -> None:
    """Put a file there in one step, durably: a reader or a power cut meets the old one or the new, whoever else writes.

    Makes its folders. Raises FileNotWritten.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(path, content)
    except OSError as error:
        raise FileNotWritten(f"{path}: cannot be written: {error.strerror or error}") from error


def _write(path: Path, content: bytes) -> None:
    handle, unfinished = tempfile.mkstemp(dir=path.parent, prefix=f"{path.name}.", suffix=UNFINISHED)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fchmod(file.fileno(), 0o644)
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except BaseException:
        Path(unfinished).unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)  # the new name is durable only once its folder is
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
