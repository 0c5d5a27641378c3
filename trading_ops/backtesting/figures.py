"""How does a person read a backtest's document?"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple


class Row(NamedTuple):
    """One figure of the strategy, as text, beside that of buying and holding and the difference; "" where not told."""

    figure: str
    strategy: str
    buy_and_hold: str = ""
    difference: str = ""


def figure_rows(document: Mapping[str, Any]) -> list[Row]:
    """The figures in the order a trader asks for them; undefined is a dash."""
    ours, theirs, less = document["metrics"], document["buy_and_hold"], document["difference"]
    interval = ours["win_rate_interval_pct"]
    still_open = f" + {ours['open_at_end']} open" if ours["open_at_end"] else ""
    rows = [
        Row("total return %", *_three(document, "total_return_pct", "+,.2f")),
        Row("without costs %", _number(document["without_costs"]["total_return_pct"], "+,.2f")),
        Row("Sharpe ratio", _sharpe(ours), _sharpe(theirs), _number(less["sharpe_ratio"], "+.2f")),
        Row("max drawdown %", *_three(document, "max_drawdown_pct", ",.2f")),
        Row("final equity USDT", *_three(document, "final_equity_usdt", ",.2f")),
        Row("trades", f"{ours['total_trades']:,}{still_open}"),
        Row("win rate %", _number(ours["win_rate_pct"], ".1f") + _span(interval, ".0f")),
        Row("profit factor", _number(ours["profit_factor"], ".2f")),
        Row("average trade %", _number(ours["avg_profit_pct"], "+.2f")),
        Row(
            "best, worst trade %",
            f"{_number(ours['best_trade_pct'], '+.2f')}, {_number(ours['worst_trade_pct'], '+.2f')}",
        ),
        Row("average duration h", _number(ours["avg_duration_hours"], ",.1f")),
        Row("exposure %", _number(ours["exposure_pct"], ".1f")),
        Row("turnover", _number(ours["turnover"], ",.1f")),
        Row("fees USDT", _number(ours["fees_usdt"], ",.2f")),
        Row("slippage USDT", _number(ours["slippage_usdt"], ",.2f")),
    ]
    if document["request"]["market"] == "futures":
        rows.append(Row("funding USDT", _number(ours["funding_usdt"], "+,.2f")))
    return [*rows, Row("rejected orders", f"{ours['rejected_orders']:,}")]


def trade_rows(trades: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Trades as a person reads them, the newest first."""
    return [
        {
            "entry": _hour(trade["entry_time"]),
            "exit": _hour(trade["exit_time"]),
            "entry price": _number(trade["entry_price"], ",.8g"),
            "exit price": _number(trade["exit_price"], ",.8g"),
            "quantity": _number(trade["quantity"], ",.6g"),
            "costs USDT": _number(trade["fee_usdt"] + trade["funding_usdt"], ",.2f"),
            "profit USDT": _number(trade["pnl_usdt"], "+,.2f"),
            "profit %": _number(trade["pnl_pct"], "+.2f"),
            "why it left": trade["close_reason"].replace("_", " "),
        }
        for trade in reversed(trades)
    ]


def verdict(document: Mapping[str, Any]) -> str:
    """Whether the difference to buying and holding is more than luck, by the 95 % interval of the daily one."""
    interval, mean = (
        document["difference"]["mean_daily_return_interval_pct"],
        document["difference"]["mean_daily_return_pct"],
    )
    if interval is None:
        return "Too few days to compare with buying and holding."
    said = f"{abs(mean):.3f} % a day {'more' if mean >= 0 else 'less'} than buying and holding{_span(interval, '+.3f')}"
    if interval[0] > 0:
        return f"{said}: more than luck explains, if these were the only parameters tried."
    if interval[1] < 0:
        return f"{said}: worse, and not by bad luck alone."
    return f"{said}: luck alone could explain it."


def _three(document: Mapping[str, Any], name: str, form: str) -> tuple[str, str, str]:
    """The figure of the strategy, that of buying and holding, and with its sign the difference where it is told."""
    less = document["difference"]
    difference = _number(less[name], f"+{form.lstrip('+')}") if name in less else ""
    return _number(document["metrics"][name], form), _number(document["buy_and_hold"][name], form), difference


def _sharpe(figures: Mapping[str, Any]) -> str:
    error = figures["sharpe_standard_error"]
    return _number(figures["sharpe_ratio"], ".2f") + ("" if error is None else f" +- {error:.2f}")


def _span(interval: Sequence[float] | None, form: str) -> str:
    return "" if interval is None else f" (95 %: {interval[0]:{form}} to {interval[1]:{form}})"


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else f"{value:{form}}"


def _hour(iso: str) -> str:
    return iso[:16].replace("T", " ")
