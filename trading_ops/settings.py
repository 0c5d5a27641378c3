"""What has the operator configured? The only reader of the environment."""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from datetime import date
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, HttpUrl, SecretStr, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from trading_ops.commands import shell
from trading_ops.health_settings import HealthSettings, Percent
from trading_ops.llm_settings import LlmSettings
from trading_ops.model_settings import ModelSettings
from trading_ops.notifications.configuration import ChannelSettings

Dollars = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Ratio = Annotated[float, Field(allow_inf_nan=False)]

LEAST_STALE_S = 15.0  # three times the daemon's own loop
GUARD_LIMITS = ("daily_loss_pct", "consecutive_losses", "recent_win_rate_pct")
SQLITE_FORM = "give sqlite:///relative.db or sqlite:////absolute/path.db"
# Names easily taken for MONGODB_URI or NOTIFICATION_CHANNELS; a cluster sets MONGODB_SERVICE_* and MONGODB_PORT*.
_SLIP = re.compile(r"MONGO_UR[IL]|MONGODB_(?!SERVICE_|PORT(_|$))|NOTIFICATIONS?_")


class Settings(ChannelSettings, HealthSettings, LlmSettings, ModelSettings, BaseSettings):
    """Every setting with its default; read from the environment, then from `.env` in the working directory.

    Those of the channels that alerts go to are in `trading_ops/notifications/configuration.py`, those of what is
    looked at besides the bot in `trading_ops/health_settings.py`, those of the LLM in `trading_ops/llm_settings.py`,
    those of models in `trading_ops/model_settings.py`.
    """

    model_config = SettingsConfigDict(
        env_prefix="TRADING_OPS_",
        env_file=".env",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        populate_by_name=True,
        hide_input_in_errors=True,  # an address that is refused may hold a password
    )

    data_dir: Path = Field(Path("var"), description="Folder of the audit store and of reports")
    store: str | None = Field(None, description="SQLite audit store; default sqlite:///<data_dir>/audit.db")
    mongodb_uri: SecretStr | None = Field(
        None, validation_alias="MONGODB_URI", description="MongoDB replica set that is the audit store instead"
    )

    copy_to: SecretStr | None = Field(None, description="Where `trading-ops audit copy` copies the audit store to")

    bot_url: HttpUrl | None = Field(None, description="Address of the bot's REST interface; empty: the paper bot")
    bot_token: SecretStr | None = Field(None, description="Bearer token of the bot's REST interface")
    bot_ca_file: Path | None = Field(None, description="Certificate authority (PEM) that signed the bot's certificate")
    bot_timeout_s: float = Field(10.0, gt=0, le=300, description="Seconds the bot may take to answer a request")
    bot_since: date = Field(date(2024, 1, 1), description="First UTC day to measure the bot behind TRADING_OPS_BOT_URL")

    ui_url: HttpUrl = Field(
        HttpUrl("http://127.0.0.1:3000"), description="Address of the Dagster UI that alerts link to"
    )

    exchange: str = Field("binance", description="Exchange, by its ccxt name, that candles are downloaded from")
    exchange_url: HttpUrl | None = Field(None, description="Address of a mirror or proxy of the exchange's interface")

    candles: Path | None = Field(None, description="Folder of SYMBOL-1h.parquet files; empty: simulated candles")
    replay: bool = Field(False, description="Shift recorded candles by whole weeks so that they end this week")
    symbols: Annotated[tuple[str, ...], NoDecode] = Field(
        ("BTCUSDT", "ETHUSDT", "SOLUSDT", "XRPUSDT", "BNBUSDT"), description="Symbols the paper bot trades"
    )

    win_rate_target_pct: Percent = Field(70.0, description="Win rate at or above this is good")
    win_rate_critical_pct: Percent = Field(55.0, description="Win rate below this is critical")
    avg_profit_target_pct: Ratio = Field(2.6, description="Average profit a trade at or above this is good")
    avg_profit_critical_pct: Ratio = Field(1.5, description="Average profit a trade below this is critical")
    sharpe_target: Ratio = Field(2.1, description="Sharpe ratio at or above this is good")
    sharpe_critical: Ratio = Field(1.0, description="Sharpe ratio below this is critical")
    min_trades: int = Field(10, ge=1, description="Trades in the window that a verdict needs")

    cost_day_warning_usd: Dollars = Field(2.0, description="LLM spend a day above this warns")
    cost_day_critical_usd: Dollars = Field(5.0, description="LLM spend a day above this is critical")
    cost_month_warning_usd: Dollars = Field(50.0, description="LLM spend a month above this warns")
    cost_month_critical_usd: Dollars = Field(100.0, description="LLM spend a month above this is critical")

    guard_daily_loss_pct: Percent = Field(10.0, description="A strategy's loss on the UTC day above this stops it")
    guard_consecutive_losses: int = Field(10, ge=1, description="More losses in a row than this stop a strategy")
    guard_recent_win_rate_pct: Percent = Field(30.0, description="Win rate over the last 20 trades below this warns")

    watchdog_stale_s: float = Field(
        180.0, gt=0, allow_inf_nan=False, description="Seconds without a tick after which people are told, at least 15"
    )
    watchdog_interval_s: float = Field(  # well below the 5 minutes after which it is missed itself
        30.0, gt=0, le=120, description="Seconds between two looks of the watchdog, at most 120"
    )

    guard_mode: Literal["act", "observe_only"] = Field(
        "act", description="observe_only: the guard tells, stops nothing"
    )
    guard_limits: Annotated[dict[str, dict[str, float]], NoDecode] = Field(
        {}, description="Limits of single strategies, such as rsi=daily_loss_pct:5,consecutive_losses:8; macd=..."
    )
    guard_portfolio_from_peak_pct: Percent | None = Field(
        None, description="A drawdown of the account from its peak above this stops every strategy; empty: never"
    )
    guard_portfolio_from_start_pct: Percent | None = Field(
        None, description="A drawdown of the account from its start above this stops every strategy; empty: never"
    )

    @field_validator("guard_limits", mode="before")
    @classmethod
    def _read_guard_limits(cls, value: object) -> object:
        return _guard_limits(value) if isinstance(value, str) else value

    @field_validator("symbols", mode="before")
    @classmethod
    def _split_symbols(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        symbols = tuple(dict.fromkeys(part.strip().upper() for part in value.split(",") if part.strip()))
        if not symbols:
            raise ValueError("no symbol; give at least one, such as BTCUSDT,ETHUSDT")
        return symbols

    @model_validator(mode="after")
    def _limits_are_in_order(self) -> Self:
        for low, high in (
            ("win_rate_critical_pct", "win_rate_target_pct"),
            ("avg_profit_critical_pct", "avg_profit_target_pct"),
            ("sharpe_critical", "sharpe_target"),
            ("cost_day_warning_usd", "cost_day_critical_usd"),
            ("cost_month_warning_usd", "cost_month_critical_usd"),
            ("health_disk_warning_pct", "health_disk_critical_pct"),
            ("health_memory_warning_pct", "health_memory_critical_pct"),
        ):
            if getattr(self, low) > getattr(self, high):
                prefix = self.model_config["env_prefix"]
                raise ValueError(f"{prefix}{low.upper()} {getattr(self, low)} must not exceed {prefix}{high.upper()}"
                                 f" {getattr(self, high)}")  # fmt: skip
        return self

    @field_validator("watchdog_stale_s")
    @classmethod
    def _a_heartbeat_has_time_to_come(cls, value: float) -> float:
        if value < LEAST_STALE_S:
            raise ValueError(f"give {LEAST_STALE_S:g} or more: a heartbeat comes every 5 s at best, and may be late")
        return value

    @field_validator("bot_url", "exchange_url", "ui_url", "ai_service_url", "frontend_url")
    @classmethod
    def _address_holds_no_password(cls, value: HttpUrl | None) -> HttpUrl | None:
        if value is not None and (value.username or value.password):
            raise ValueError("an address is shown and must hold no name or password; a token has a variable of its own")
        return value

    @field_validator("store")
    @classmethod
    def _store_holds_no_password(cls, value: str | None) -> str | None:
        if value is not None and not _is_sqlite(value):
            raise ValueError(f"{SQLITE_FORM}; MongoDB goes into MONGODB_URI")
        return value

    @field_validator("mongodb_uri", "copy_to")
    @classmethod
    def _address_can_be_used(cls, value: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        address = value.get_secret_value() if value is not None else None
        if address is None or (info.field_name == "copy_to" and _is_sqlite(address)):
            return value
        if not address.startswith(("mongodb://", "mongodb+srv://")):
            sqlite = f"{SQLITE_FORM}, or " if info.field_name == "copy_to" else "give "
            raise ValueError(f"{sqlite}mongodb://host:27017/database?replicaSet=rs0, or mongodb+srv://host/database")
        from trading_ops.audit.store import open_store

        open_store(address).close()  # connects to nobody; what it refuses it tells without the address
        return value

    @model_validator(mode="after")
    def _one_store(self) -> Self:
        if self.store and self.mongodb_uri:
            raise ValueError("TRADING_OPS_STORE and MONGODB_URI are both set; the audit trail has one store, clear one")
        return self

    @property
    def store_uri(self) -> str:
        """The audit store's address; it may hold a password, so it is never shown as it is."""
        if self.mongodb_uri is not None:
            return self.mongodb_uri.get_secret_value()
        return self.store or f"sqlite:///{self.data_dir / 'audit.db'}"


def _guard_limits(text: str) -> dict[str, dict[str, float]]:
    """`rsi=daily_loss_pct:5,consecutive_losses:8; macd=daily_loss_pct:20` by strategy; raises ValueError."""
    found: dict[str, dict[str, float]] = {}
    for part in filter(None, map(str.strip, text.split(";"))):
        strategy, _, listed = (piece.strip() for piece in part.partition("="))
        limits: dict[str, float] = {}
        for item in listed.split(","):
            name, _, figure = (piece.strip() for piece in item.partition(":"))
            try:
                limits[name] = float(figure)
            except ValueError:
                limits[name] = -1.0
            whole = name != "consecutive_losses" or (limits[name].is_integer() and limits[name] >= 1)
            if not strategy or name not in GUARD_LIMITS or not 0 <= limits[name] <= 100_000 or not whole:
                raise ValueError(f"{part!r}: a strategy and its limits are needed, such as rsi=daily_loss_pct:5; the"
                                 f" limits are {', '.join(GUARD_LIMITS)}")  # fmt: skip
        found[strategy] = limits
    return found


def _is_sqlite(address: str) -> bool:
    """Whether `trading_ops.audit.store.open_store` takes this for a SQLite file."""
    path = address.removeprefix("sqlite:///")
    return path != address and path != ":memory:" and bool(path.strip("/")) and path[-1] != "/" and "?" not in path


class InvalidSettings(ValueError):
    """A variable holds what it cannot; the message names the variable, never a secret's value."""


def load_settings() -> Settings:
    """The settings in force; raises InvalidSettings naming each wrong variable and what would be right."""
    try:
        return Settings()
    except ValidationError as error:
        prefix = Settings.model_config["env_prefix"].upper()
        whole_names = {str(field.validation_alias) for field in Settings.model_fields.values()}
        problems = []
        for problem in error.errors(include_url=False):
            name = ".".join(map(str, problem["loc"])).upper()
            name = next((part for part in map(str, problem["loc"][:1]) if part in whole_names), name)
            alone = not name or name in whole_names
            problems.append(
                f"{'' if alone else prefix}{name}{': ' if name else ''}{problem['msg'].removeprefix('Value error, ')}"
            )
        raise InvalidSettings("; ".join(problems)) from None


def environment_with(settings: Collection[str], **own: str) -> dict[str, str]:
    """This process's environment for another one that is to know, of our variables, these settings' and `own` alone."""
    fields, prefix = Settings.model_fields, str(Settings.model_config["env_prefix"])
    wanted = {str(fields[name].validation_alias or f"{prefix}{name}").upper() for name in settings}
    given = [*_env_file().items(), *os.environ.items()]
    known = _known_variables()
    others = {name: value for name, value in os.environ.items() if name.upper() not in known}
    return {**others, **{name.upper(): value for name, value in given if value and name.upper() in wanted}, **own}


def unknown_variables() -> list[str]:
    """The variables named like ours, in the environment or in `.env`, that no setting reads."""
    known, prefix = _known_variables(), str(Settings.model_config["env_prefix"])
    given = {*os.environ, *_env_file()}
    ours = {name for name in given if name.upper().startswith(prefix) or _SLIP.match(name.upper())}
    return sorted(name for name in ours if name.upper() not in known)


def overruled_variables() -> list[str]:
    """Our variables of which `.env` says something else, or nothing, than the environment: Dagster takes `.env`'s."""
    known = _known_variables()
    return sorted(
        name for name, value in _env_file().items() if name.upper() in known and os.environ.get(name, value) != value
    )


def _known_variables() -> set[str]:
    prefix = str(Settings.model_config["env_prefix"])
    aliases = {str(field.validation_alias).upper() for field in Settings.model_fields.values()}
    return aliases | {f"{prefix}{name}".upper() for name in Settings.model_fields}


def _env_file() -> dict[str, str]:
    from dotenv import dotenv_values

    return {name: value or "" for name, value in dotenv_values(str(Settings.model_config["env_file"])).items()}


def use_dagster_home() -> Path:
    """The folder of dagster.yaml, as DAGSTER_HOME says or else the working directory, which becomes DAGSTER_HOME."""
    # one planned event for a range, not one a day: halves the time of a backfill; what fails is said in the terminal
    os.environ.setdefault("DAGSTER_EMIT_PARTITION_SUBSET_IN_PLANNED_EVENTS", "1")
    home = Path(os.environ.setdefault("DAGSTER_HOME", str(Path.cwd())))
    if not (home / "dagster.yaml").is_file():
        raise InvalidSettings(
            f"DAGSTER_HOME: {home} holds no dagster.yaml; run this from the project's folder or set it"
        )
    if home.resolve() != Path.cwd().resolve():
        raise InvalidSettings(f"var/ lies in DAGSTER_HOME, so this works there only: {shell('cd', home)}")
    return home
