"""Where does a backtest stay? Its document in the audit store, its tear sheet in a file."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from trading_ops.audit.store import AuditStore, Entry, Receipt

if TYPE_CHECKING:
    from trading_ops.backtesting.report import Backtest

COLLECTION = "backtests"


class TearSheetError(Exception):
    """The file cannot be written; the message names it and why."""


def keep_document(store: AuditStore, backtest: Backtest) -> Receipt:
    """Append the document under its digest; nothing where the same request found the same on the same candles."""
    (receipt,) = store.append(COLLECTION, [Entry("", backtest.digest, backtest.document)])
    return receipt


def keep_tear_sheet(data_dir: Path, backtest: Backtest) -> Path:
    """Write <data_dir>/reports/backtests/<digest>.html in one step, whoever else writes it. Raises TearSheetError."""
    from trading_ops.backtesting.tear_sheet import tear_sheet

    path = data_dir / "reports" / "backtests" / f"{backtest.digest}.html"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, unfinished = tempfile.mkstemp(dir=path.parent, prefix=f".{backtest.digest[:16]}-", suffix=".part")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(tear_sheet(backtest))
                os.fchmod(file.fileno(), 0o644)
            Path(unfinished).replace(path)
        finally:
            Path(unfinished).unlink(missing_ok=True)
    except OSError as error:
        raise TearSheetError(f"{path}: cannot be written: {error.strerror or error}") from error
    return path


def said_of(receipt: Receipt) -> str:
    """Where the document is, in words."""
    if receipt.spooled:
        return "waits in the spool until the audit store is back: see `trading-ops doctor`"
    return f"{COLLECTION} record {receipt.seq}" + ("" if receipt.appended else ", stored before")
