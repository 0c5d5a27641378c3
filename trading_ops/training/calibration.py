"""How far may a model's log-odds be believed? As far as the windows it was not fitted to bear out."""

from __future__ import annotations

import numpy as np

# a prior of 0.1 log-odds for a deviation of what is seen: what 52 % of right directions come to (1 / 0.1^2)
L2 = 100.0


def platt(logits: np.ndarray, labels: np.ndarray, l2: float = L2) -> tuple[float, float]:
    """(a, b) of probability = 1 / (1 + exp(-(a logit + b))), fitted to validation windows, a >= 0.

    Shrunk towards the base rate: `l2` weighs against a slope, and logits that say nothing, or the opposite, give a = 0
    and the share of rises alone. Labels 1 and 0 count as (n1 + 1) / (n1 + 2) and 1 / (n0 + 2), n1 rises and n0 falls.
    `logits` float [n], `labels` [n] 1 or 0. Raises ValueError for other values, unequal lengths or none at all.
    Source: Platt (1999).
    """
    x, y = np.asarray(logits, "float64"), np.asarray(labels, "float64")
    if x.ndim != 1 or x.shape != y.shape or not len(x):
        raise ValueError(f"{x.shape} logits and {y.shape} labels: one label a logit, and at least one, would be right")
    if not np.isfinite(x).all():
        raise ValueError(
            f"logits[{np.isfinite(x).argmin()}] is {x[~np.isfinite(x)][0]}; a finite number would be right"
        )
    require_binary(y)
    rises = int(y.sum())
    target = np.where(y == 1.0, (rises + 1) / (rises + 2), 1 / (len(y) - rises + 2))
    mean, deviation = x.mean(), x.std()
    if deviation > 1e-9 * max(1.0, abs(mean)):
        slope, centre = ridge_logit(((x - mean) / deviation)[:, None], target, l2)
        if slope[0] > 0.0:
            a = float(slope[0] / deviation)
            return a, float(centre - a * mean)
    share = target.mean()
    return 0.0, float(np.log(share) - np.log1p(-share))


def calibrated(logits: np.ndarray, a: float, b: float) -> np.ndarray:
    """1 / (1 + exp(-(a logit + b))), float64.

    >>> calibrated(np.array([-2000.0, 2.0]), 0.5, -1.0).tolist()
    [0.0, 0.5]
    """
    from scipy.special import expit

    return np.asarray(expit(a * np.asarray(logits, "float64") + b))


def ridge_logit(x: np.ndarray, y: np.ndarray, l2: float) -> tuple[np.ndarray, float]:
    """Weights w [k] and intercept b that minimise sum(-y log p - (1-y) log(1-p)) + l2/2 |w|^2, p = 1/(1+exp(-(xw+b))).

    `x` float64 [n, k], `y` float64 [n] from 0 to 1, not all 0 or all 1. Newton's method within a trust region
    (Conn, Gould and Toint 2000); no start is drawn. Raises ArithmeticError where it does not converge.
    """
    from scipy.optimize import minimize
    from scipy.special import expit

    seen = np.column_stack([x, np.ones(len(x))])
    penalty = np.append(np.full(x.shape[1], l2), 0.0) / len(x)

    def loss(w: np.ndarray) -> tuple[float, np.ndarray]:
        z = seen @ w
        value = float(np.mean(np.logaddexp(0.0, z) - y * z) + 0.5 * penalty @ (w * w))
        return value, seen.T @ (expit(z) - y) / len(x) + penalty * w

    def curvature(w: np.ndarray) -> np.ndarray:
        p = expit(seen @ w)
        return (seen.T * (p * (1.0 - p))) @ seen / len(x) + np.diag(penalty)

    start = np.zeros(seen.shape[1])
    found = minimize(loss, start, jac=True, hess=curvature, method="trust-exact", options={"gtol": 1e-9})
    # where rounding hides any further descent, the search ends without calling it a success
    if not np.abs(loss(found.x)[1]).max() <= 1e-7:
        raise ArithmeticError(f"the logistic fit to {len(x)} rows did not converge: {found.message}")
    return found.x[:-1], float(found.x[-1])


def require_binary(labels: np.ndarray) -> None:
    """Raises ValueError for a label that is neither 1 nor 0."""
    wrong = (labels != 0.0) & (labels != 1.0)
    if wrong.any():
        raise ValueError(f"labels[{wrong.argmax()}] is {labels[wrong][0]}; 1 or 0 would be right")
