"""What has a strategy lost that its trades do not show, and is that known to be no withdrawal?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Books:
    """One strategy's money since its baseline, USDT, None where unknown.

    `equity` and `unrealised` are of now and of the baseline; `realised`: its trades since the baseline; `paid_in`: what
    people noted as paid into it. A baseline of closed trades or of what was allocated has no open positions in it.
    """

    equity: float | None
    baseline: float | None
    basis: str
    realised: float | None
    unrealised: float | None
    unrealised_then: float | None
    paid_in: float = 0.0

    def unexplained(self) -> float | None:
        """Equity now - (baseline + realised + change of the marks + paid in); None where that cannot be known."""
        if self.equity is None or self.baseline is None or self.realised is None:
            return None
        if self.basis in ("equity", "resume"):
            both = self.unrealised is not None and self.unrealised_then is not None
            marks = (self.unrealised or 0.0) - (self.unrealised_then or 0.0) if both else 0.0
        elif self.basis in ("closed_only", "allocation") and self.unrealised is not None:
            marks = self.unrealised
        else:
            return None
        return self.equity - (self.baseline + self.realised + marks + self.paid_in)


def lost_unseen(books: Mapping[str, Books], paid_in: float | None) -> dict[str, tuple[float, bool]]:
    """For each strategy whose equity fell by more than its trades explain: by how much (below 0), and whether that is
    known to be a loss. `paid_in`: into the account in the time, USDT, None: not known.

    Money that moved to another strategy or out of the account is no loss: what strategies lost unseen is at most what
    all of them together lack once the flows are taken out. Where that sum is not known, neither is a loss.

    >>> def at(equity): return Books(equity, 100.0, "equity", 0.0, 0.0, 0.0)
    >>> lost_unseen({"rsi": at(80.0), "macd": at(100.0)}, 0.0)
    {'rsi': (-20.0, True)}
    >>> lost_unseen({"rsi": at(80.0), "macd": at(115.0)}, 0.0)
    {'rsi': (-5.0, True)}
    >>> lost_unseen({"rsi": at(80.0), "macd": at(100.0)}, -20.0)
    {}
    >>> lost_unseen({"rsi": at(80.0), "macd": at(100.0)}, None)
    {'rsi': (-20.0, False)}
    """
    apart = {name: own.unexplained() for name, own in books.items()}
    known = [amount for amount in apart.values() if amount is not None]
    lacking = {name: amount for name, amount in apart.items() if amount is not None and amount < 0}
    if paid_in is None or len(known) < len(apart):
        return {name: (amount, False) for name, amount in lacking.items()}
    together = min(0.0, sum(known) - (paid_in - sum(own.paid_in for own in books.values())))
    return {name: (max(amount, together), True) for name, amount in lacking.items() if together < 0}
