"""Where do orders fill, and what is the account worth from bar to bar? Loops that run as machine code.

Rules: docs/backtests.md. `fill_orders` is the one place where orders fill, of a single backtest as of
every set of a sweep; `mark` is the one place where what they hold is valued. Imported where it is used: numba takes
half a second.
"""

import numpy as np

from trading_ops.machine_code import compiled

SIGNAL, STOP_LOSS, TAKE_PROFIT, OPEN_AT_END, LIQUIDATION = range(5)
# what `score` writes for each set
COLUMNS = 9
TRADES, WINS, GAINS, LOSSES, HOURS, FINAL, WORST_FALL, MEAN, DEVIATION = range(COLUMNS)


@compiled
def _broke(bars, at, i, held, after):  # type: ignore[no-untyped-def]
    """The price at bar i's open at which a position entered at bar `at` has lost the whole account."""
    return bars.funding[i] - bars.funding[at] - after / held


@compiled
def _watch(  # type: ignore[no-untyped-def]
    bars, terms, at, until, entry, held, after, stop_loss, take_profit
):
    """The first bar of [at, until) that takes a position out, the fill and the reason; the last bar + 1 if none does.

    What the open decides comes first; within the bar the order is unknown, so the worse is taken.
    """
    n, side = len(bars.opened), terms.side
    stop = entry * (1.0 - side * stop_loss)
    target = entry * (1.0 + side * take_profit)
    for i in range(at, until):
        opened = bars.opened[i]
        worst, best = (bars.low[i], bars.high[i]) if side > 0.0 else (bars.high[i], bars.low[i])
        broke = _broke(bars, at, i, held, after)
        gapped = i > at and side * (opened - target) >= 0.0
        lost = side * (worst - broke) <= 0.0 and not gapped
        if side * (worst - stop) <= 0.0 and not gapped:
            first = min(opened, stop) if side > 0.0 else max(opened, stop)
            if not lost or side * (first - broke) >= 0.0:
                return i, first * (1.0 - side * terms.slip), STOP_LOSS
        if lost:
            return i, broke, LIQUIDATION
        if gapped or side * (best - target) >= 0.0:
            return i, target, TAKE_PROFIT
    return n, 0.0, OPEN_AT_END


@compiled
def fill_orders(  # type: ignore[no-untyped-def]
    bars, terms, enter_at, leave_at, allowed, stop_loss, take_profit, places, amounts
):
    """Fill one strategy's orders; the number of trades, of rejected orders, and the cash at the end.

    `enter_at`, `leave_at`: the bars after whose close to act, ascending. `allowed`: a bool a bar (none: all), whether
    an entry may fill there. Stop and target are fractions of the entry fill, NaN is off. Trade k is written to
    `places[k]` (entry bar, exit bar, reason) and `amounts[k]` (entry fill, exit fill, quantity, fees, funding).

    Jumps from order to order: bars are looked at one by one only where a stop, a target or a liquidation may come.
    """
    n = len(bars.opened)
    cash, count, rejected = terms.initial, 0, 0
    enter, leave = 0, 0
    can_break = terms.side < 0.0 or bars.funding[n - 1] != 0.0  # or a position's loss is bounded by what it cost
    ready = 0  # the first close at which the next entry may be decided
    while True:
        while enter < len(enter_at) and enter_at[enter] < ready:
            enter += 1
        if enter == len(enter_at):
            break
        at = enter_at[enter] + 1 + terms.latency
        if at >= n:
            break
        if len(allowed) > 0 and not allowed[at]:  # the order is not given
            ready = enter_at[enter] + 1
            continue
        ready = at
        entry = bars.opened[at] * (1.0 + terms.side * terms.slip)
        quantity = cash * terms.share / (entry * (1.0 + terms.fee))
        if terms.lot_step > 0.0:
            quantity = np.floor(quantity / terms.lot_step + 1e-9) * terms.lot_step
        if quantity <= 0.0 or quantity * entry < terms.min_notional:
            rejected += 1
            continue
        held, paid = terms.side * quantity, quantity * entry * terms.fee
        after = cash - (held * entry + paid)
        while leave < len(leave_at) and leave_at[leave] < at:
            leave += 1
        due = leave_at[leave] + 1 + terms.latency if leave < len(leave_at) else n
        gone, fill, reason = n, 0.0, OPEN_AT_END
        if not np.isnan(stop_loss) or not np.isnan(take_profit) or can_break:
            gone, fill, reason = _watch(bars, terms, at, min(due, n), entry, held, after, stop_loss, take_profit)
        if gone == n and due < n:
            gone, fill, reason = due, bars.opened[due] * (1.0 - terms.side * terms.slip), SIGNAL
        if gone == n:
            places[count, 0], places[count, 1], places[count, 2] = at, n - 1, OPEN_AT_END
            funding = held * (bars.funding[n - 1] - bars.funding[at])
            amounts[count, 0], amounts[count, 1], amounts[count, 2] = entry, bars.close[n - 1], quantity
            amounts[count, 3], amounts[count, 4] = paid, funding
            cash = after + (held * bars.close[n - 1] - funding)
            count += 1
            break
        cost = quantity * fill * terms.fee
        funding = held * (bars.funding[gone] - bars.funding[at])
        cash = after + (held * fill - cost - funding)
        if reason == LIQUIDATION or cash <= 0.0:  # a gap, slippage or fees can take more than there is: all is lost
            fill, reason, cost, cash = _broke(bars, at, gone, held, after), LIQUIDATION, 0.0, 0.0
        places[count, 0], places[count, 1], places[count, 2] = at, gone, reason
        amounts[count, 0], amounts[count, 1], amounts[count, 2] = entry, fill, quantity
        amounts[count, 3], amounts[count, 4] = paid + cost, funding
        count += 1
        ready = gone
    return count, rejected, cash


@compiled
def mark(bars, terms, count, places, amounts, ends, equity, unrealised):  # type: ignore[no-untyped-def]
    """What the account is worth after `count` trades: `ends` at each day's last close, and at every close.

    `equity` and `unrealised` (mark value less entry notional, entry fee and funding) may be empty: then they are not
    kept. Returns the largest fall from a running peak, as a fraction, over the start capital and all closes.
    """
    n, kept = len(bars.close), len(equity) > 0
    cash = peak = terms.initial
    floor, worst = peak, 0.0  # below `floor` lies a deeper fall than the worst so far
    bar, day = 0, 0
    for k in range(count + 1):
        begin = places[k, 0] if k < count else n
        if kept:
            for i in range(bar, begin):
                equity[i] = cash
                unrealised[i] = 0.0
        while day < len(ends) and bars.day_end[day] < begin:
            ends[day] = cash
            day += 1
        if k == count:
            break
        entry, fill, quantity = amounts[k, 0], amounts[k, 1], amounts[k, 2]
        fees, drain = amounts[k, 3], amounts[k, 4]
        held, still_open = terms.side * quantity, places[k, 2] == OPEN_AT_END
        end = n if still_open else places[k, 1]
        paid = quantity * entry * terms.fee
        after = cash - (held * entry + paid)
        base = bars.funding[begin]
        for i in range(begin, end):
            value = after + held * (bars.close[i] - (bars.funding[i] - base))
            if value > peak:
                peak = value
                floor = peak * (1.0 - worst)
            elif value < floor:
                worst = (peak - value) / peak
                floor = value
            if kept:
                equity[i] = value
                unrealised[i] = held * (bars.close[i] - entry - (bars.funding[i] - base)) - paid
        while day < len(ends) and bars.day_end[day] < end:
            i = bars.day_end[day]
            ends[day] = after + held * (bars.close[i] - (bars.funding[i] - base))
            day += 1
        bar = end
        if still_open:
            break
        cash = 0.0 if places[k, 2] == LIQUIDATION else after + (held * fill - (fees - paid) - drain)
        if cash > peak:
            peak = cash
            floor = peak * (1.0 - worst)
        elif cash < floor:
            worst = (peak - cash) / peak
            floor = cash
    return worst


@compiled
def score(  # type: ignore[no-untyped-def]
    bars, terms, enter_rows, enter_from, enter_row, leave_rows, leave_from, leave_row,
    stop_loss, take_profit, day_block, out, returns, squares, trades,
):  # fmt: skip
    """Trade every set and write its row: `out` (N, COLUMNS), and by block of days (N, B) returns, squares and trades.

    Set s enters at `enter_rows[enter_from[r] : enter_from[r + 1]]` with r = enter_row[s], and leaves alike.
    `day_block`: each day's block, -1 for none.
    """
    n, days = len(bars.opened), len(bars.day_end)
    places, amounts = np.empty((n, 3), np.int64), np.empty((n, 5))
    ends, nothing, everywhere = np.empty(days), np.empty(0), np.empty(0, np.bool_)
    for s in range(len(enter_row)):
        enter_at = enter_rows[enter_from[enter_row[s]] : enter_from[enter_row[s] + 1]]
        leave_at = leave_rows[leave_from[leave_row[s]] : leave_from[leave_row[s] + 1]]
        count, _, cash = fill_orders(
            bars, terms, enter_at, leave_at, everywhere, stop_loss[s], take_profit[s], places, amounts
        )
        worst = mark(bars, terms, count, places, amounts, ends, nothing, nothing)
        closed, wins, gains, losses, hours = 0, 0, 0.0, 0.0, 0.0
        for k in range(count):
            if places[k, 2] == OPEN_AT_END:
                continue
            pnl = terms.side * amounts[k, 2] * (amounts[k, 1] - amounts[k, 0]) - amounts[k, 3] - amounts[k, 4]
            closed += 1
            if pnl > 0.0:
                wins += 1
                gains += pnl
            elif pnl < 0.0:
                losses -= pnl
            hours += bars.hour[places[k, 1]] - bars.hour[places[k, 0]]
            block = day_block[bars.day[places[k, 1]]]
            if block >= 0:
                trades[s, block] += 1
        total, before = 0.0, terms.initial
        for d in range(days):
            change = ends[d] / before - 1.0 if before > 0.0 else 0.0
            before = ends[d]
            ends[d] = change
            total += change
            block = day_block[d]
            if block >= 0:
                returns[s, block] += change
                squares[s, block] += change * change
        mean, spread = total / days, 0.0
        for d in range(days):
            spread += (ends[d] - mean) ** 2
        out[s, TRADES], out[s, WINS], out[s, GAINS], out[s, LOSSES], out[s, HOURS] = closed, wins, gains, losses, hours
        out[s, FINAL], out[s, WORST_FALL], out[s, MEAN] = cash, worst, mean
        out[s, DEVIATION] = np.sqrt(spread / (days - 1)) if days > 1 else np.nan
