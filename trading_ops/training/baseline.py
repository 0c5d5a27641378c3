"""What does a straight line through the last bar's features say? What a network must at least be as good as."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trading_ops.training.calibration import L2, calibrated, require_binary, ridge_logit
from trading_ops.training.samples import Samples

FURTHEST = 10.0  # deviations: a bar further out is taken for this far


@dataclass(frozen=True, slots=True, eq=False)
class Logistic:
    """log-odds of a rise = coefficients . (features of the last bar - mean) / std + intercept; float64 [k] each."""

    names: tuple[str, ...]
    mean: np.ndarray
    std: np.ndarray
    coefficients: np.ndarray
    intercept: float

    def probabilities(self, samples: Samples, rows: np.ndarray) -> np.ndarray:
        """The probability of a rise after each of these rows, float64 [m]. Raises ValueError for unknown features."""
        if samples.names != self.names:
            raise ValueError(f"features of {samples.symbol} are {samples.names}; the baseline learnt from {self.names}")
        return calibrated(_scaled(_known(samples, rows), self.mean, self.std) @ self.coefficients, 1.0, self.intercept)

    def weights(self) -> dict[str, np.ndarray]:
        """Everything that it is, by name, float64."""
        return {
            "scaler.mean": self.mean,
            "scaler.std": self.std,
            "coefficients": self.coefficients,
            "intercept": np.array([self.intercept]),
        }


def fit_logistic(samples: Samples, rows: np.ndarray, l2: float = L2) -> Logistic:
    """L2 logistic regression of the labels on the last bar's features, standardised on `rows`; the same every time.

    The intercept is not shrunk. Raises ValueError where a feature or label of a row is unknown, or all labels agree.
    """
    rows = np.asarray(rows, "int64")
    seen, labels = _known(samples, rows), samples.labels[rows].astype("float64")
    require_binary(labels)
    if not 0.0 < labels.sum() < len(labels):
        raise ValueError(f"all {len(labels)} labels of {samples.symbol} agree; rises and falls would be right")
    mean, deviation = seen.mean(axis=0), seen.std(axis=0)
    std = np.where(deviation > 1e-12 * np.maximum(1.0, np.abs(mean)), deviation, 1.0)
    coefficients, intercept = ridge_logit(_scaled(seen, mean, std), labels, l2)
    return Logistic(samples.names, mean, std, coefficients, intercept)


def _known(samples: Samples, rows: np.ndarray) -> np.ndarray:
    seen = samples.features[rows].astype("float64")
    unknown = ~np.isfinite(seen)
    if unknown.any():
        row, column = np.argwhere(unknown)[0]
        raise ValueError(
            f"{samples.names[column]} of {samples.symbol} is unknown at row {rows[row]}; rows of Samples.decidable()"
            " would be right"
        )
    return seen


def _scaled(seen: np.ndarray, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    return np.clip((seen - mean) / std, -FURTHEST, FURTHEST)
