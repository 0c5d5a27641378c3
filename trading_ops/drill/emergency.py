"""Does a bleeding strategy get stopped and do people hear of it? Real processes, on a bot and a store of their own."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from trading_ops.drill.marking import MARK, as_drill
from trading_ops.drill.receiver import Receiver
from trading_ops.drill.timeline import Timeline, timeline
from trading_ops.guard.actions import PENDING, STOPPED
from trading_ops.notifications.configuration import ChannelSettings
from trading_ops.notifications.delivery import SENT
from trading_ops.settings import Settings, environment_with

if TYPE_CHECKING:
    from trading_ops.guard.rules import Limits
    from trading_ops.services import Services

SYMBOL = "BTCUSDT"
SMALL_PCT = 0.01  # of the equity: what each of many losses takes, so that their number alone is too much
STARTS_WITHIN_S = 120.0
ENDS_WITHIN_S = 15.0
POLL_S = 0.02
GUARD_SETTINGS = ("guard_daily_loss_pct", "guard_consecutive_losses", "guard_recent_win_rate_pct", "guard_limits")
NOT_CHANNELS = ("watchdog_ping_url",)
Say = Callable[[str], None]


class DrillFailed(Exception):
    """It could not be held; the message says what did not start."""


@dataclass(frozen=True, slots=True)
class Plan:
    """So many losses in a row, each of so many percent of the strategy's equity."""

    strategy: str
    losses: int
    each_pct: float

    def sentence(self) -> str:
        return f"{self.losses} loss{'es' if self.losses > 1 else ''} of {self.each_pct:g} % for {self.strategy}"


def plan(strategy: str, limits: Limits, losses: int | None, loss_pct: float | None) -> Plan:
    """What crosses a limit; by default one loss more than may follow each other. Raises ValueError for what does not.

    >>> from trading_ops.guard.rules import Limits
    >>> plan("rsi", Limits(), None, None).losses, plan("rsi", Limits(), None, 12.0).each_pct
    (11, 12.0)
    """
    if losses is not None and loss_pct is not None:
        raise ValueError("give either --losses or --loss-pct")
    if loss_pct is not None:
        if loss_pct <= limits.daily_loss_pct:
            raise ValueError(f"--loss-pct {loss_pct:g} stops nothing: more than {limits.daily_loss_pct:g} % does")
        return Plan(strategy, 1, loss_pct)
    if losses is not None and losses <= limits.consecutive_losses:
        raise ValueError(f"--losses {losses} stops nothing: more than {limits.consecutive_losses} in a row do")
    return Plan(strategy, losses or limits.consecutive_losses + 1, SMALL_PCT)


@dataclass(frozen=True, slots=True)
class Outcome:
    """`channels`: what became of the alert on each; `wrong`: what else speaks against a success."""

    plan: Plan
    times: Timeline
    channels: Mapping[str, str]
    action: Mapping[str, Any] | None
    wrong: tuple[str, ...] = ()

    @property
    def missing(self) -> list[str]:
        return [*(f"not reached: {phase}" for phase in self.times.missing()), *self.wrong]


@dataclass(slots=True)
class Emergency:
    """One drill. `tell`: through the user's channels, else to a receiver on this machine."""

    settings: Settings
    plan: Plan
    tell: bool
    within_s: float
    say: Say
    _home: Path = field(init=False)

    def hold(self) -> Outcome:
        """Raises DrillFailed where it cannot be held, and ValueError for a strategy that the bot does not have."""
        with ExitStack() as stack:
            self._home = Path(stack.enter_context(TemporaryDirectory(prefix="trading-ops-drill-")))
            (self._home / "dagster.yaml").touch()
            receiver = stack.enter_context(Receiver())
            paper = self._services()
            paper.paper_bot.lose(self.plan.strategy, [-1.0])  # a win: what was lost before does not count
            self.say("starting a paper bot of its own")
            bot = stack.enter_context(self._process("bot", ["bot", "serve", "--port", "0"]))
            url = bot.until(lambda: re.search(r"http://127\.0\.0\.1:\d+", bot.said()))[0]
            self.say(f"it answers on {url}; starting its guard")
            services = self._services(url)
            line = ["guard", "watch", "--drill", "--heartbeat", str(services.heartbeats.guard_file)]
            guard = stack.enter_context(self._process("guard", line, self._channels(receiver), url=url))
            beat = guard.until(lambda: (beat := services.heartbeats.guard()) and beat.seen_at and beat)
            if self.plan.strategy in beat.stopped:
                raise DrillFailed(f"{self.plan.strategy} was stopped before the drill began: take another strategy")
            equity = (services.bot.portfolio().equity_by_strategy or {})[self.plan.strategy]
            self.say(f"it watches; now {self.plan.sentence()} ({equity:,.0f} USDT)")
            paper.paper_bot.lose(self.plan.strategy, [equity * self.plan.each_pct / 100] * self.plan.losses)
            appeared = datetime.now(UTC)
            until = time.monotonic() + self.within_s
            while (outcome := self._look(services, receiver, appeared)).missing and time.monotonic() < until:
                if guard.process.poll() is not None:
                    break
                time.sleep(POLL_S)
            if self.tell and outcome.action is not None and outcome.action["state"] in STOPPED:
                guard.end()
                self._resolve(services)
            return outcome

    def _services(self, url: str | None = None) -> Services:
        """What this process knows of the drill's bot and store; None: of what the bot was told."""
        from pydantic import HttpUrl

        from trading_ops.services import Services

        own = {
            "data_dir": self._home / "var", "store": None, "mongodb_uri": None, "candles": None, "replay": False,
            "symbols": (SYMBOL,), "bot_url": HttpUrl(url) if url else None, "bot_token": None, "bot_ca_file": None,
            "guard_mode": "act",
        }  # fmt: skip
        return Services(self.settings.model_copy(update=own))

    def _channels(self, receiver: Receiver) -> dict[str, str]:
        if self.tell:
            return environment_with([name for name in ChannelSettings.model_fields if name not in NOT_CHANNELS])
        own = {"NOTIFICATION_CHANNELS": "webhook", "WEBHOOK_URL": receiver.url, "WEBHOOK_SECRET": receiver.secret}
        return environment_with((), **own)

    @contextmanager
    def _process(
        self, name: str, line: list[str], channels: Mapping[str, str] | None = None, *, url: str = ""
    ) -> Iterator[_Process]:
        """A command of ours in the drill's folder; it outlives neither the block nor, by its stdin, this process."""
        own = {"DAGSTER_HOME": str(self._home), "TRADING_OPS_SYMBOLS": SYMBOL, "TRADING_OPS_BOT_URL": url}
        env = {**environment_with(GUARD_SETTINGS), **(channels or {}), **own}
        log = self._home / f"{name}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "trading_ops.cli.main", *line, "--until-stdin-ends"],
                cwd=self._home, env=env, process_group=0, stdin=subprocess.PIPE, stdout=out,
                stderr=None if self.tell else out,  # the terminal may be told
            )  # fmt: skip
        started = _Process(name, process, log)
        try:
            yield started
        finally:
            started.end()

    def _look(self, services: Services, receiver: Receiver, appeared: datetime) -> Outcome:
        """How far it is by now."""
        from trading_ops.bot.client import BotError

        documents = services.store.list_state("guard_actions", f"{services.bot.source}/")
        action = next((d.body for d in documents if d.body["strategy"] == self.plan.strategy), None)
        channels, delivered = self._deliveries(services, receiver)
        times = timeline(appeared, action, delivered or [None])
        wrong = []
        if not times.missing():  # the guard says that it is done: is it?
            try:
                enabled = [state.name for state in services.bot.strategies() if state.enabled]
            except BotError as error:
                wrong.append(f"the bot cannot be asked: {error}")
            else:
                wrong += [f"{self.plan.strategy} is enabled at the bot"] if self.plan.strategy in enabled else []
        if action is not None and action["state"] in PENDING and action["why"]:
            wrong.append(f"it is not confirmed: {action['why']}")
        return Outcome(self.plan, times, channels, action, tuple(wrong))

    def _deliveries(self, services: Services, receiver: Receiver) -> tuple[dict[str, str], list[datetime | None]]:
        """What became of the alert of the confirmed stop on each channel, and when it was delivered there."""
        if not self.tell:
            at = next((at for at, document in list(receiver.taken) if self._of_the_stop(document)), None)
            return {"a receiver on this machine": SENT if at else "not there"}, [at]
        told = [d for d in services.outbox.deliveries() if self._of_the_stop(d["alert"])]
        channels = told[0]["channels"] if told else {}
        said = {name: channel.get("error") or channel["state"] for name, channel in channels.items()}
        return said, [
            datetime.fromisoformat(channel["at"]) if channel["state"] == SENT else None for channel in channels.values()
        ]

    def _of_the_stop(self, alert: Mapping[str, Any]) -> bool:
        return bool(alert["what"] == f"{MARK}{self.plan.strategy} was stopped")

    def _resolve(self, services: Services) -> None:
        """Where people were told of an incident, they are told that it is over."""
        from trading_ops.guard.by_hand import preflight, resume

        guard = services.guard
        guard.tell = as_drill(guard.tell)
        seen = preflight(guard, self.plan.strategy)
        resume(guard, self.plan.strategy, reason="the drill is over", by="the drill", seen=seen)
        for incident in services.incidents.unsettled():  # such as a limit that came near before
            if incident.goes_on:
                services.incidents.recover(incident.key)


@dataclass(slots=True)
class _Process:
    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def until(self, true: Callable[[], Any]) -> Any:
        """Wait for what it is started for; raises DrillFailed where it ends or takes too long."""
        deadline = time.monotonic() + STARTS_WITHIN_S
        while not (found := true()):
            if (code := self.process.poll()) is not None or time.monotonic() > deadline:
                how = f"did not start within {STARTS_WITHIN_S:g} s" if code is None else f"ended (exit code {code})"
                raise DrillFailed(
                    f"the drill's {self.name} {how}; it said: {self.said().strip()[-2_000:] or 'nothing'}"
                )
            time.sleep(POLL_S)
        return found

    def end(self) -> None:
        """As Ctrl-C does, with patience, then for good."""
        self.process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(ENDS_WITHIN_S)
        self.process.kill()
        self.process.wait()
        if self.process.stdin:
            self.process.stdin.close()
