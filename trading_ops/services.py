"""Which adapters does this configuration ask for? Built here, some in `channels`, `advisers`, `markets`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING

from trading_ops import policies
from trading_ops.advisers import configured_adviser, configured_ledger
from trading_ops.channels import configured_channel
from trading_ops.markets import configured_candles, configured_exchange
from trading_ops.settings import Settings, load_settings

if TYPE_CHECKING:
    from trading_ops.assessments.gpt4 import Gpt4
    from trading_ops.assessments.rules import Limits as RetrainLimits
    from trading_ops.audit.history import History
    from trading_ops.audit.spool import SpooledStore
    from trading_ops.audit.store import AuditStore
    from trading_ops.bot.client import Bot, Calendar
    from trading_ops.costs.budget import Limits as CostLimits
    from trading_ops.costs.ledger import Ledger
    from trading_ops.guard.switch import Guard
    from trading_ops.guard.switch import Policy as GuardPolicy
    from trading_ops.guard.teller import Teller
    from trading_ops.guard.telling import Tell
    from trading_ops.market.candles import CandleSource
    from trading_ops.market.exchange import ExchangeCandles
    from trading_ops.notifications.channel import Channel
    from trading_ops.notifications.desk import IncidentDesk
    from trading_ops.notifications.outbox import Outbox
    from trading_ops.paper.bot import PaperBot
    from trading_ops.performance.verdict import Limits as PerformanceLimits
    from trading_ops.training.registry import Registry
    from trading_ops.training.train import Workshop
    from trading_ops.watchdog.heartbeat import Heartbeats


def utc_now() -> datetime:
    return datetime.now(UTC)


class Services:
    """Settings in, clients out; each client is built when it is first used and kept."""

    def __init__(self, settings: Settings | None = None, now: Callable[[], datetime] = utc_now) -> None:
        self.settings = settings or load_settings()
        self.now = now
        self._sources: dict[tuple[str, ...] | None, CandleSource] = {}

    @cached_property
    def candles(self) -> CandleSource:
        """Candles of TRADING_OPS_SYMBOLS."""
        return self.candles_among(self.settings.symbols)

    def candles_among(self, symbols: Sequence[str] | None) -> CandleSource:
        """Candles of TRADING_OPS_SYMBOLS and these, or (None) of all that are recorded; freshness is judged among them.

        Simulated are TRADING_OPS_SYMBOLS alone: any name could be made up.
        """
        own = self.settings.symbols
        wanted = None if symbols is None else tuple(dict.fromkeys((*own, *symbols)))
        if self.settings.candles is None:
            wanted = own
        if wanted not in self._sources:
            for other in [key for key in self._sources if key != own]:
                del self._sources[other]  # what was read of it is remembered, so only the last one stays
            self._sources[wanted] = configured_candles(self.settings, wanted, self.now)
        return self._sources[wanted]

    def exchange(self, name: str) -> ExchangeCandles:
        """Where candles are downloaded from."""
        return configured_exchange(self.settings, name)

    @cached_property
    def bot(self) -> Bot:
        if self.settings.bot_url is None:
            return self.paper_bot
        from trading_ops.bot.http import HttpBot

        token = self.settings.bot_token
        return HttpBot(
            str(self.settings.bot_url),
            token=token.get_secret_value() if token else None,
            ca_file=self.settings.bot_ca_file,
            timeout_s=self.settings.bot_timeout_s,
            since=self.settings.bot_since,
            now=self.now,
        )

    @cached_property
    def paper_bot(self) -> PaperBot:
        """The built-in bot, also where another one is watched: `trading-ops bot serve` offers it."""
        from trading_ops.paper.bot import PaperBot

        return PaperBot(self.candles, lambda: self._paper_memory, self.settings.symbols, self.now)

    @cached_property
    def _paper_memory(self) -> AuditStore:
        """What the paper bot was told. Its own file: a bot goes on while the audit store is down."""
        from trading_ops.audit.store import open_store

        return open_store(f"sqlite:///{self.settings.data_dir / 'paper.db'}")

    def known_calendar(self) -> Calendar:
        """The days that exist, as far as they are known without asking a bot over the network."""
        from trading_ops.bot.client import Calendar

        if self.settings.bot_url is None:
            return self.paper_bot.calendar()
        return Calendar(self.settings.bot_since, self.now().date() - timedelta(days=1), live=True)

    @cached_property
    def store(self) -> AuditStore:
        """The audit store; one on a server is spooled to this machine's disk while the server is away."""
        from trading_ops.audit.store import open_store

        return self.spooled_store or open_store(self.settings.store_uri)

    @cached_property
    def spooled_store(self) -> SpooledStore | None:
        """The store with its spool, None where the store itself is a file on this machine."""
        if self.settings.mongodb_uri is None:
            return None
        from trading_ops.audit.spool import SpooledStore
        from trading_ops.audit.store import open_store

        shared, waiting = open_store(self.settings.store_uri), self.settings.data_dir / "spool.db"
        return SpooledStore(shared, waiting, label=self.store_label)

    @property
    def store_label(self) -> str:
        """Where the audit store is, without what may be a password."""
        if self.settings.mongodb_uri is None:
            return self.settings.store_uri
        from trading_ops.audit.mongo_client import shown

        return shown(self.settings.store_uri)

    @property
    def bot_label(self) -> str:
        """Which bot is watched."""
        if self.settings.bot_url is None:
            return f"the paper bot on {self.paper_bot.label} candles"
        return f"the bot at {self.settings.bot_url}"

    def bot_symbols(self) -> tuple[str, ...]:
        """The symbols whose candles matter; raises BotError.

        TRADING_OPS_SYMBOLS, whose default is the paper bot's alone: another bot's are those it holds or closed a
        trade of in its last 7 days, sorted, which may be none.
        """
        from trading_ops.bot.client import BotError

        if self.settings.bot_url is None or "symbols" in self.settings.model_fields_set:
            return self.settings.symbols
        now = self.bot.now()
        symbols = set(self.bot.closed_trades(now - timedelta(days=7), now).frame["symbol"])
        with suppress(BotError):  # a bot need not tell its positions (docs/bot-interface.md)
            symbols |= {position.symbol for position in self.bot.open_positions()}
        return tuple(sorted(symbols))

    @cached_property
    def history(self) -> History:
        """History queries; their present is the bot's, so that a recording's last days are recent ones."""
        from trading_ops.audit.history import History

        return History(self.store, self.bot.now)

    @cached_property
    def channels(self) -> dict[str, Channel]:
        """The channels that alerts go to, by name; the terminal where none is configured."""
        return {name: self.channel(name) for name in self.settings.active_channels or ("console",)}

    def channel(self, name: str) -> Channel:
        """One channel as it is configured, chosen or not; raises KeyError for a name that is none."""
        return configured_channel(name, self.settings)

    @cached_property
    def outbox(self) -> Outbox:
        """Where alerts are written; in a file of its own while the audit store is away or damaged."""
        return self._outbox()

    def _outbox(self, *, sends: bool = True) -> Outbox:
        from trading_ops.audit.late import late
        from trading_ops.audit.store import open_store
        from trading_ops.notifications.outbox import Outbox

        local = self.settings.data_dir / "outbox.db"
        return Outbox(
            late(lambda: self.store),
            self.channels,
            self.now,
            fallback=lambda: open_store(f"sqlite:///{local}"),
            fallback_exists=local.exists,
            routes=self.settings.routes,
            sends=sends,
        )

    @cached_property
    def incidents(self) -> IncidentDesk:
        """What is wrong, and what is told of it through the outbox; updates where a channel shows them."""
        return self._desk(self.outbox)

    def _desk(self, outbox: Outbox) -> IncidentDesk:
        from trading_ops.audit.late import late
        from trading_ops.notifications.desk import IncidentDesk

        shown = any(channel.updates for channel in self.channels.values())
        policy = policies.incident_policy(self.settings, updates_are_shown=shown)
        return IncidentDesk(late(lambda: self.store), outbox, lambda: self.now(), policy)

    @cached_property
    def heartbeats(self) -> Heartbeats:
        """Signs of life, in files beside the databases: they are there while those are not."""
        from trading_ops.watchdog.heartbeat import Heartbeats

        return Heartbeats(self.settings.data_dir / "heartbeats")

    @cached_property
    def registry(self) -> Registry:
        """The trained models, and which of them predict."""
        from trading_ops.audit.late import late
        from trading_ops.training.registry import Registry

        folder = self.settings.models or self.settings.data_dir / "models"
        return Registry(folder, late(lambda: self.store), self.now)

    @cached_property
    def workshop(self) -> Workshop:
        """Where models are trained, and how long that may take."""
        from trading_ops.training.train import Workshop

        return Workshop(self.registry, self.settings.data_dir, policies.training_limits(self.settings), self.now)

    @cached_property
    def ledger(self) -> Ledger:
        """Where LLM calls are reserved and settled."""
        return configured_ledger(self.settings, lambda: self.store, self.now)

    @cached_property
    def adviser(self) -> Gpt4:
        """Whom the assessments ask."""
        return configured_adviser(self.settings, self.ledger)

    @property
    def performance_limits(self) -> PerformanceLimits:
        return policies.performance_limits(self.settings)

    @property
    def cost_limits(self) -> CostLimits:
        return policies.cost_limits(self.settings)

    @property
    def retrain_limits(self) -> RetrainLimits:
        return policies.retrain_limits(self.settings)

    @property
    def guard_policy(self) -> GuardPolicy:
        return policies.guard_policy(self.settings)

    @cached_property
    def guard(self) -> Guard:
        """The guard of a command or run: it has told people before it ends."""
        from trading_ops.guard.telling import through

        return self._guard(through(self.incidents))

    @cached_property
    def standing_guard(self) -> Guard:
        """The guard of a process that stays: the `teller` sends what it has to say."""
        return self._guard(self.teller.tell)

    @cached_property
    def teller(self) -> Teller:
        """Sends in threads of its own what the standing guard writes."""
        from trading_ops.guard.teller import Teller

        outbox = self._outbox(sends=False)
        return Teller(self._desk(outbox), outbox)

    def _guard(self, tell: Tell) -> Guard:
        """What it did is on this machine's disk as well as in the audit store, and may be in one of them alone."""
        from trading_ops.audit.late import late
        from trading_ops.audit.store import open_store
        from trading_ops.guard.memory import GuardMemory
        from trading_ops.guard.switch import Guard
        from trading_ops.guard.watch import Watch

        local = f"sqlite:///{self.settings.data_dir / 'guard.db'}"
        memory = GuardMemory(late(lambda: self.store), lambda: open_store(local), self.bot.source)
        return Guard(self.bot, memory, Watch(self.now), self.guard_policy, tell)
