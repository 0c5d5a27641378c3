"""In whose process does a step run? In the run's own, unless the run asks for parallel steps."""

from collections.abc import Iterator, Mapping
from typing import Any

import dagster as dg
from dagster._core.execution.retries import RetryMode
from dagster._core.executor.in_process import InProcessExecutor
from dagster._core.executor.multiprocess import MultiprocessExecutor

FIELD = "parallel_steps"  # of the config of one of the job's ops


class StepsExecutor(dg.Executor):
    """In the run's own process, unless the run asks for parallel steps: then each step in a process of its own."""

    @property
    def retries(self) -> RetryMode:
        return RetryMode.ENABLED

    def execute(self, plan_context: Any, execution_plan: Any) -> Iterator[dg.DagsterEvent]:
        steps = parallel_steps(plan_context.run_config)
        executor = MultiprocessExecutor(self.retries, steps) if steps > 1 else InProcessExecutor(self.retries)
        yield from executor.execute(plan_context, execution_plan)


def parallel_steps(run_config: Mapping[str, Any]) -> int:
    """How many a run's config asks for."""
    asked = (op.get("config", {}).get(FIELD) for op in run_config.get("ops", {}).values())
    return int(next((steps for steps in asked if steps is not None), 1))


@dg.executor(name="steps")
def steps_executor(_: dg.InitExecutorContext) -> dg.Executor:
    return StepsExecutor()
