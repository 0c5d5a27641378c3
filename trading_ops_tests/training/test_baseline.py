"""Is the logistic baseline the textbook's, and blind to every row it was not given?"""

from dataclasses import replace

import numpy as np
import pytest
import statsmodels.api as sm

from trading_ops.accuracy.outcomes import HOUR_US
from trading_ops.training.baseline import fit_logistic
from trading_ops.training.samples import Samples

ROWS = np.arange(3, 900)


@pytest.fixture
def samples() -> Samples:
    """Three features on scales of their own, of which the first says something; the last 100 bars are for no one."""
    random = np.random.default_rng(4)
    seen = random.normal(size=(1_000, 3))
    labels = (random.random(1_000) < 1 / (1 + np.exp(-0.8 * seen[:, 0] - 0.2))).astype("float32")
    features = (seen * [0.01, 1.0, 50.0] + [0.0, 5.0, -3.0]).astype("float32")
    return Samples("BTCUSDT", ("a", "b", "c"), np.arange(1_000) * HOUR_US, features, labels, lookback=4)


def standardised(samples: Samples) -> np.ndarray:
    seen = samples.features.astype("float64")
    return (seen - seen[ROWS].mean(axis=0)) / seen[ROWS].std(axis=0)


def test_without_a_penalty_it_is_the_logit_of_statsmodels(samples: Samples):
    ours = fit_logistic(samples, ROWS, l2=0.0)
    exog = sm.add_constant(standardised(samples))
    theirs = sm.Logit(samples.labels[ROWS], exog[ROWS]).fit(disp=0, tol=1e-12)
    np.testing.assert_allclose([ours.intercept, *ours.coefficients], theirs.params, atol=1e-6)
    late = np.arange(900, 1_000)
    np.testing.assert_allclose(ours.probabilities(samples, late), theirs.predict(exog[late]), atol=1e-6)


def test_with_a_penalty_it_is_the_ridge_of_statsmodels(samples: Samples):
    ours = fit_logistic(samples, ROWS, l2=100.0)
    exog = sm.add_constant(standardised(samples))[ROWS]
    model = sm.GLM(samples.labels[ROWS].astype("float64"), exog, family=sm.families.Binomial())
    alpha = np.array([0.0, 1.0, 1.0, 1.0]) * 100.0 / len(ROWS)  # of the mean loss, and none on the intercept
    theirs = model.fit_regularized(alpha=alpha, L1_wt=0.0)
    np.testing.assert_allclose([ours.intercept, *ours.coefficients], theirs.params, atol=1e-4)
    assert abs(ours.coefficients[0]) < abs(fit_logistic(samples, ROWS, l2=0.0).coefficients[0])


def test_rows_it_is_not_given_change_nothing(samples: Samples):
    features, labels = samples.features.copy(), samples.labels.copy()
    features[900:], labels[900:] = 1e6, 1.0 - labels[900:]
    one, other = (
        fit_logistic(some, ROWS).weights() for some in (samples, replace(samples, features=features, labels=labels))
    )
    assert {name: value.tobytes() for name, value in one.items()} == {name: v.tobytes() for name, v in other.items()}
    assert sorted(one) == ["coefficients", "intercept", "scaler.mean", "scaler.std"]


def test_a_bar_however_far_out_gets_a_probability(samples: Samples):
    features = samples.features.copy()
    features[950] = 3e38
    said = fit_logistic(samples, ROWS).probabilities(replace(samples, features=features), np.array([950]))
    assert 0.0 < said[0] < 1.0


def test_a_feature_that_never_changes_says_nothing(samples: Samples):
    features = samples.features.copy()
    features[:, 1] = 7.0
    ours = fit_logistic(replace(samples, features=features), ROWS)
    assert ours.coefficients[1] == 0.0
    assert np.isfinite(ours.probabilities(samples, ROWS)).all()


def test_rows_that_cannot_be_learnt_from_are_refused(samples: Samples):
    features, labels = samples.features.copy(), samples.labels.copy()
    features[50, 1], labels[60] = np.nan, np.nan
    holed = replace(samples, features=features, labels=labels)
    with pytest.raises(ValueError, match="b of BTCUSDT is unknown at row 50"):
        fit_logistic(holed, ROWS)
    with pytest.raises(ValueError, match=r"labels\[5\] is nan"):
        fit_logistic(holed, np.arange(55, 100))
    with pytest.raises(ValueError, match="all 0 labels"):
        fit_logistic(samples, ROWS[:0])
    with pytest.raises(ValueError, match="agree; rises and falls would be right"):
        fit_logistic(samples, np.flatnonzero(samples.labels == 1.0))
    with pytest.raises(ValueError, match="the baseline learnt from"):
        fit_logistic(samples, ROWS).probabilities(replace(samples, names=("a", "c", "b")), ROWS)
