"""How are a symbol's indicators calculated, compiled? Imported only where they are: numba takes half a second.

A row holds one symbol's closes or volumes, its real bars only, oldest first. Every window is summed anew around a value
of its own every few lengths, so that a price that fell a thousandfold leaves no rounding behind; all is homogeneous in
the price, so that no coin is too cheap to have bands.
"""

import numpy as np

from trading_ops.machine_code import compiled

RSI, MACD_HISTOGRAM, BOLLINGER_POSITION, BOLLINGER_DEVIATION, VOLUME_RATIO, VOLATILITY, RETURNS = range(7)
RESUMMED_EVERY = 4  # lengths of the window


@compiled
def panel_indicators(
    close: np.ndarray,
    volume: np.ndarray,
    rsi_period: int,
    fast: int,
    slow: int,
    signal: int,
    band_period: int,
    deviations: float,
    flat: float,
    volume_period: int,
    volatility_period: int,
    lags: np.ndarray,
    out: np.ndarray,
) -> None:
    """Fill `out` (6 + lags, symbols, bars) from `close` and `volume` (symbols, bars), NaN where there is no bar."""
    symbols, bars = close.shape
    scratch = np.empty((2, bars))
    packed = np.empty((2 + out.shape[0], 1, bars))
    places = np.empty(bars, np.int64)
    for s in range(symbols):
        count = 0
        for i in range(bars):
            if not np.isnan(close[s, i]):
                places[count] = i
                count += 1
        first = places[0] if count > 0 else 0
        stop = first + count
        if count < bars:
            out[:, s, :] = np.nan
        gaps = count > 0 and places[count - 1] != stop - 1
        if not gaps:
            closes, volumes, results, row = close[s, first:stop], volume[s, first:stop], out, s
        else:
            first, stop, results, row = 0, count, packed[2:], 0
            closes, volumes = packed[0, 0, :count], packed[1, 0, :count]
            for i in range(count):
                closes[i], volumes[i] = close[s, places[i]], volume[s, places[i]]
        _rsi(closes, rsi_period, results[RSI, row, first:stop], scratch)
        _macd_histogram(closes, fast, slow, signal, results[MACD_HISTOGRAM, row, first:stop])
        position, deviation = (
            results[BOLLINGER_POSITION, row, first:stop],
            results[BOLLINGER_DEVIATION, row, first:stop],
        )
        _bands(closes, band_period, deviations, flat, position, deviation, scratch)
        _volume_ratio(volumes, volume_period, results[VOLUME_RATIO, row, first:stop], scratch)
        for k in range(lags.size):
            _returns(closes, lags[k], results[RETURNS + k, row, first:stop])
        _volatility(closes, volatility_period, results[VOLATILITY, row, first:stop], scratch)
        if gaps:
            for k in range(out.shape[0]):
                for i in range(count):
                    out[k, s, places[i]] = results[k, 0, i]


@compiled
def place_bars(
    times: np.ndarray,
    opened: np.ndarray,
    high: np.ndarray,
    low: np.ndarray,
    close: np.ndarray,
    volume: np.ndarray,
    start: int,
    step: int,
    out: np.ndarray,
    row: int,
) -> bool:
    """Put bars onto the grid start, start + step, ... of `out` (5, rows, bars), NaN before; whether all are sound.

    Sound: on the grid, later than the one before, finite, low <= open and close <= high, low above 0, volume not below.
    """
    before = -1
    sound = True
    for i in range(times.size):
        at = (times[i] - start) // step
        fits = start + at * step == times[i] and before < at < out.shape[2]
        bottom, top = min(opened[i], close[i]), max(opened[i], close[i])
        # each comparison is false for NaN
        possible = 0.0 < low[i] <= bottom and top <= high[i] < np.inf and 0.0 <= volume[i] < np.inf
        if not (fits and possible) or np.isnan(opened[i]) or np.isnan(close[i]):
            sound = False
            break
        before = at
        out[0, row, at], out[1, row, at], out[2, row, at] = opened[i], high[i], low[i]
        out[3, row, at], out[4, row, at] = close[i], volume[i]
    return sound


@compiled
def _rsi(close: np.ndarray, period: int, out: np.ndarray, scratch: np.ndarray) -> None:
    out[:period] = np.nan
    if close.size <= period:
        return
    rose, fell, weight = 0.0, 0.0, 1.0 / period
    for i in range(period):
        change = close[i + 1] - close[i]
        rose += max(change, 0.0)
        fell += max(-change, 0.0)
    rose, fell = rose / period, fell / period
    later, result = close[period:], out[period:]
    rises, falls = scratch[0, : later.size], scratch[1, : later.size]
    rises[0], falls[0], before = rose, fell, later[0]
    for i in range(1, later.size):
        change = later[i] - before
        before = later[i]
        rise = change if change > 0.0 else 0.0
        rose += (rise - rose) * weight
        fell += (rise - change - fell) * weight
        rises[i], falls[i] = rose, fell
    for i in range(later.size):
        result[i] = 100.0 * rises[i] / (rises[i] + falls[i])  # 0/0 until the price has changed: NaN


@compiled
def _macd_histogram(close: np.ndarray, fast: int, slow: int, signal: int, out: np.ndarray) -> None:
    start = slow + signal - 2
    out[:start] = np.nan
    if close.size <= start:
        return
    fast_weight, slow_weight, signal_weight = 2.0 / (fast + 1), 2.0 / (slow + 1), 2.0 / (signal + 1)
    quick, steady = 0.0, 0.0
    for i in range(slow):  # both averages start where the slow one is full, as TA-Lib's
        steady += close[i]
        if i >= slow - fast:
            quick += close[i]
    quick, steady = quick / fast, steady / slow
    average = quick - steady
    for i in range(slow, start + 1):
        quick += (close[i] - quick) * fast_weight
        steady += (close[i] - steady) * slow_weight
        average += quick - steady
    average /= signal
    later, result = close[start:], out[start:]
    result[0] = quick - steady - average
    for i in range(1, later.size):
        quick += (later[i] - quick) * fast_weight
        steady += (later[i] - steady) * slow_weight
        line = quick - steady
        average += (line - average) * signal_weight
        result[i] = line - average


@compiled
def _moments(values: np.ndarray, period: int, means: np.ndarray, squares: np.ndarray) -> None:
    """Mean and summed squared deviations of each `period` values; `means[k]` ends with values[k + period - 1]."""
    windows, length = values.size - period + 1, RESUMMED_EVERY * period
    for begin in range(0, windows, length):
        stop = min(begin + length, windows)
        anchor, total, square = values[begin], 0.0, 0.0
        for i in range(begin, begin + period - 1):
            x = values[i] - anchor
            total += x
            square += x * x
        entering, leaving = values[begin + period - 1 : stop + period - 1], values[begin:stop]
        mean, spread = means[begin:stop], squares[begin:stop]
        for i in range(entering.size):
            x, y = entering[i] - anchor, leaving[i] - anchor
            total += x
            square += x * x
            mean[i], spread[i] = total, square
            total -= y
            square -= y * y
        for i in range(mean.size):
            x = mean[i] / period
            spread[i] = max(spread[i] - mean[i] * x, 0.0)
            mean[i] = anchor + x


@compiled
def _bands(
    close: np.ndarray,
    period: int,
    deviations: float,
    flat: float,
    position: np.ndarray,
    deviation: np.ndarray,
    scratch: np.ndarray,
) -> None:
    position[: period - 1] = np.nan
    deviation[: period - 1] = np.nan
    if close.size < period:
        return
    later, result, spread = close[period - 1 :], position[period - 1 :], deviation[period - 1 :]
    means = scratch[0, : later.size]
    _moments(close, period, means, spread)
    for i in range(later.size):
        s = np.sqrt(spread[i] / period)
        spread[i] = s
        result[i] = (later[i] - means[i]) / (deviations * s) if s > flat * later[i] else np.nan


@compiled
def _volume_ratio(volume: np.ndarray, period: int, out: np.ndarray, scratch: np.ndarray) -> None:
    out[:period] = np.nan
    if volume.size <= period:
        return
    means = scratch[0, : volume.size - period + 1]
    _moments(volume, period, means, scratch[1])
    traded = 0  # bars with any volume: after a busy time the running mean of idle bars is rounding, not 0
    for i in range(period):
        traded += volume[i] > 0.0
    later, leaving, result = volume[period:], volume[: volume.size - period], out[period:]
    for i in range(later.size):
        result[i] = later[i] / means[i] if traded > 0 else np.nan
        traded += later[i] > 0.0
        traded -= leaving[i] > 0.0


@compiled
def _returns(close: np.ndarray, lag: int, out: np.ndarray) -> None:
    out[:lag] = np.nan
    if close.size <= lag:
        return
    now, then, result = close[lag:], close[: close.size - lag], out[lag:]
    for i in range(now.size):
        result[i] = now[i] / then[i] - 1.0


@compiled
def _volatility(close: np.ndarray, period: int, out: np.ndarray, scratch: np.ndarray) -> None:
    out[:period] = np.nan
    if close.size <= period:
        return
    changes = scratch[0, : close.size - 1]
    for i in range(changes.size):
        changes[i] = close[i + 1] / close[i] - 1.0
    result = out[period:]
    _moments(changes, period, scratch[1, : result.size], result)
    for i in range(result.size):
        result[i] = np.sqrt(result[i] / (period - 1))
