"""Where does a backtest stay? Its document in the audit store, its tear sheet in a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from trading_ops.audit.store import AuditStore, Entry, Receipt
from trading_ops.files import write_whole

if TYPE_CHECKING:
    from trading_ops.backtesting.report import Backtest

COLLECTION = "backtests"


def keep_document(store: AuditStore, backtest: Backtest) -> Receipt:
    """Append the document under its digest; nothing where the same request found the same on the same candles."""
    (receipt,) = store.append(COLLECTION, [Entry("", backtest.digest, backtest.document)])
    return receipt


def keep_tear_sheet(data_dir: Path, backtest: Backtest) -> Path:
    """Write <data_dir>/reports/backtests/<digest>.html in one step. Raises FileNotWritten."""
    from trading_ops.backtesting.tear_sheet import tear_sheet

    path = data_dir / "reports" / "backtests" / f"{backtest.digest}.html"
    write_whole(path, tear_sheet(backtest).encode())
    return path


def said_of(receipt: Receipt) -> str:
    """Where the document is, in words."""
    if receipt.spooled:
        return "waits in the spool until the audit store is back: see `trading-ops doctor`"
    return f"{COLLECTION} record {receipt.seq}" + ("" if receipt.appended else ", stored before")
