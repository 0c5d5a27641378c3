"""The table of contents: every page of defs/, merged by name."""

import warnings

# the daily assets are built on this parameter; that Dagster calls it beta tells a user nothing
warnings.filterwarnings("ignore", message="Parameter `backfill_policy`")

import dagster as dg  # noqa: E402

from trading_ops.defs import (  # noqa: E402
    accuracy,
    analysis,
    assessments,
    audit,
    backtesting,
    costs,
    guard,
    health,
    market,
    notifications,
    optimization,
    performance,
    portfolio,
    training,
    watchdog,
)
from trading_ops.defs.resources import RESOURCES, SERVICES  # noqa: E402, F401

defs = dg.Definitions.merge(
    performance.defs,
    accuracy.defs,
    assessments.defs,
    portfolio.defs,
    costs.defs,
    guard.defs,
    health.defs,
    market.defs,
    optimization.defs,
    notifications.defs,
    backtesting.defs,
    analysis.defs,
    audit.defs,
    training.defs,
    watchdog.defs,
    dg.Definitions(resources=RESOURCES, executor=dg.in_process_executor),
)
