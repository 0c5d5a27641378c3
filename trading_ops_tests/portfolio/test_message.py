"""What are people told of the account's day, also where some of it is unknown?"""

from trading_ops.notifications.picture import picture_of
from trading_ops.portfolio.message import report_alert

ROW = {
    "equity_usdt": 10_010.0, "return_pct": 0.1, "return_since_start_pct": -2.5, "realised_pnl_usdt": 12.0,
    "fees_usdt": 2.0, "net_flows_usdt": 0.0, "total_trades": 3, "win_rate_pct": 100.0 / 3,
}  # fmt: skip
HEADS = ["closed_trades:7:ab12", "llm_calls:2:cd34"]


def document(**changes):
    return {**ROW, "candles": "recorded", "strategies": {"rsi": {**ROW, "total_trades": 1}}, **changes}


def test_the_report_says_the_day_by_account_and_strategy():
    alert = report_alert({"2025-03-09": document()}, ["2025-03-09"], heads=HEADS)
    assert alert.what == "Portfolio on 2025-03-09: 10,010.00 USDT, +0.10 % (recorded candles)"
    assert alert.why.splitlines() == [
        "account: equity 10,010.00 USDT, day +0.10 %, since start -2.50 %, 3 trades",
        "rsi: equity 10,010.00 USDT, day +0.10 %, since start -2.50 %, 1 trades",
    ]
    assert alert.numbers["audit_heads"] == {"closed_trades": "closed_trades:7:ab12", "llm_calls": "llm_calls:2:cd34"}
    assert (alert.incident, alert.severity, alert.day) == (None, "INFO", "2025-03-09")


def test_what_is_unknown_is_said_to_be_and_is_a_gap_in_the_picture():
    days = ["2025-03-07", "2025-03-08", "2025-03-09"]
    known = document(equity_usdt=None, return_pct=None)
    alert = report_alert({"2025-03-07": document(), "2025-03-09": known}, days, heads=["unknown: the store is down"])
    assert alert.what == "Portfolio on 2025-03-09: unknown, unknown (recorded candles)"
    assert alert.picture["series"] == {"equity": [10_010.0, None, None]}
    assert alert.numbers["audit_heads"] == {"unknown": "unknown: the store is down"}
    assert picture_of(alert.picture) is not None
