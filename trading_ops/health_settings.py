"""What else than the bot is looked at, and from when on is it bad?"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import BaseModel, Field, HttpUrl, SecretStr, ValidationInfo, field_validator
from pydantic_settings import NoDecode

Percent = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]
Names = Annotated[tuple[str, ...], NoDecode]

OVER_HTTP = ("engine", "ai_service", "frontend")
COMPONENTS = (*OVER_HTTP, "document_db", "cache", "broker", "disk", "memory", "candles")


class HealthSettings(BaseModel):
    """What can be configured about `system_health_check`; the variables have the prefix of all settings."""

    ai_service_url: HttpUrl | None = Field(None, description="Address that the AI service answers with 2xx")
    frontend_url: HttpUrl | None = Field(None, description="Address of the frontend's page")
    redis_url: SecretStr | None = Field(None, description="Address of the cache, redis:// or rediss://")
    broker_url: SecretStr | None = Field(None, description="Address of the message broker, amqp:// or amqps://")
    health_off: Names = Field((), description="Components that system_health_check leaves out")
    health_expected: Annotated[Mapping[str, tuple[int, ...]], NoDecode] = Field(
        {}, description="Statuses of HTTP that are healthy besides 2xx and 304, by component"
    )
    health_timeout_s: float = Field(10.0, gt=0, le=11, description="Seconds a component may take, twice, to answer")
    health_slow_s: float = Field(5.0, gt=0, description="An answer that takes this long or longer is slow")
    health_disk_warning_pct: Percent = Field(80.0, description="Used disk above this warns")
    health_disk_critical_pct: Percent = Field(90.0, description="Used disk above this is critical")
    health_memory_warning_pct: Percent = Field(80.0, description="Used memory above this warns")
    health_memory_critical_pct: Percent = Field(90.0, description="Used memory above this is critical")
    health_queues: Names = Field(
        ("scheduled", "ml_training", "backtesting", "optimization", "bulk_analysis"), description="Queues to look at"
    )
    health_queue_depth: int = Field(1000, ge=0, description="More messages than this in one queue warn")
    health_candles_hours: int = Field(3, ge=1, description="A last bar that closed longer ago than this is stale")

    @field_validator("health_off", "health_queues", mode="before")
    @classmethod
    def _split_names(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        return tuple(dict.fromkeys(part.strip() for part in value.split(",") if part.strip()))

    @field_validator("health_off")
    @classmethod
    def _is_a_component(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := [name for name in value if name not in COMPONENTS]:
            raise ValueError(f"no component is called {', '.join(unknown)}; give any of {', '.join(COMPONENTS)}")
        return value

    @field_validator("health_expected", mode="before")
    @classmethod
    def _split_statuses(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        expected = {}
        for part in filter(str.strip, value.split(";")):
            name, _, codes = (text.strip() for text in part.partition("="))
            if name not in OVER_HTTP or not re.fullmatch(r"[1-5]\d\d( *, *[1-5]\d\d)*", codes):
                raise ValueError(
                    f"{part.strip()!r}: give such as engine=403; frontend=401,403 of {', '.join(OVER_HTTP)}"
                )
            expected[name] = tuple(int(code) for code in codes.split(","))
        return expected

    @field_validator("redis_url", "broker_url")
    @classmethod
    def _names_a_server(cls, value: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        if value is None:
            return None
        schemes = ("redis", "rediss") if info.field_name == "redis_url" else ("amqp", "amqps", "pyamqp")
        try:
            url = urlsplit(value.get_secret_value())
            whole = url.scheme in schemes and bool(url.hostname) and url.port != 0 and not url.fragment
        except ValueError:
            whole = False
        # an @ behind the host means that a password was cut at a / it should have escaped
        if not whole or "@" in url.path + url.query:
            raise ValueError(
                f"give {schemes[0]}://user:password@host:port/name, with special characters of user and password"
                " percent-encoded"
            )
        return value
