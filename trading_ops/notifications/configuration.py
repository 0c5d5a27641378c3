"""Which channels did the operator choose, and has each what it needs?"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from email.utils import parseaddr
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, Field, SecretStr, ValidationInfo, field_validator, model_validator
from pydantic_settings import NoDecode

from trading_ops.notifications.alert import Alert, Severity
from trading_ops.notifications.routes import QuietHours, Routes, parse_escalation, parse_quiet_hours, parse_routes

# what each channel needs; of several groups one is enough
NEEDS: dict[str, tuple[tuple[str, ...], ...]] = {
    "console": ((),),
    "slack": (("SLACK_BOT_TOKEN", "SLACK_CHANNEL"), ("SLACK_WEBHOOK_URL",)),
    "email": (("SMTP_HOST", "EMAIL_FROM", "EMAIL_TO"),),
    "discord": (("DISCORD_WEBHOOK_URL",),),
    "telegram": (("TELEGRAM_BOT_TOKEN", "TELEGRAM_CHAT_ID"),),
    "pagerduty": (("PAGERDUTY_ROUTING_KEY",),),
    "webhook": (("WEBHOOK_URL", "WEBHOOK_SECRET"),),
}
_ADDRESS = re.compile(r"[^\s@<>,;:\"()\[\]\\]+@[^\s@<>,;:\"()\[\]\\]+")
_HOST = re.compile(r"[^\s:/@\[\]?#\\]+")
Security = Literal["starttls", "ssl", "none"]
Names = Annotated[tuple[str, ...], NoDecode]


def _setting(variable: str, default: Any, description: str, **limits: Any) -> Any:
    return Field(default, validation_alias=variable, description=description, **limits)


class ChannelSettings(BaseModel):
    """What can be configured about notifications; the variables have no prefix of ours."""

    notifications_enabled: bool = _setting("NOTIFICATIONS_ENABLED", True, "Whether the chosen channels are used")
    notification_channels: Names = _setting("NOTIFICATION_CHANNELS", (), f"Any of {', '.join(NEEDS)}")

    notification_routes: Annotated[Mapping[Severity, tuple[str, ...]], NoDecode] = _setting(
        "NOTIFICATION_ROUTES", {}, "Channels by severity; others go to all"
    )
    notification_escalation: Annotated[tuple[tuple[str, ...], ...], NoDecode] = _setting(
        "NOTIFICATION_ESCALATION", (), "Channels to tell next of a CRITICAL that nobody acknowledges"
    )
    notification_escalate_minutes: float = _setting(
        "NOTIFICATION_ESCALATE_MINUTES", 15.0, "Minutes that each step of it waits", gt=0, le=1440
    )
    notification_quiet_hours: Annotated[QuietHours | None, NoDecode] = _setting(
        "NOTIFICATION_QUIET_HOURS", None, "Hours (UTC) in which INFO waits"
    )

    smtp_host: str | None = _setting("SMTP_HOST", None, "Server that takes e-mail")
    smtp_port: int | None = _setting("SMTP_PORT", None, "Its port; default by SMTP_SECURITY", ge=1, le=65_535)
    smtp_username: str | None = _setting("SMTP_USERNAME", None, "Name to log in with; empty: without a login")
    smtp_password: SecretStr | None = _setting("SMTP_PASSWORD", None, "Password to log in with")
    smtp_security: Security = _setting("SMTP_SECURITY", "starttls", "starttls, ssl, or none to this machine alone")
    email_from: str | None = _setting("EMAIL_FROM", None, "Sender of e-mail")
    email_to: Names = _setting("EMAIL_TO", (), "Recipients of e-mail, separated by commas")

    slack_webhook_url: SecretStr | None = _setting("SLACK_WEBHOOK_URL", None, "Slack's incoming webhook")
    slack_bot_token: SecretStr | None = _setting("SLACK_BOT_TOKEN", None, "Slack's bot token, instead of a webhook")
    slack_channel: str | None = _setting("SLACK_CHANNEL", None, "Channel that the bot posts to")
    discord_webhook_url: SecretStr | None = _setting("DISCORD_WEBHOOK_URL", None, "Discord's webhook")
    telegram_bot_token: SecretStr | None = _setting("TELEGRAM_BOT_TOKEN", None, "Telegram's bot token")
    telegram_chat_id: str | None = _setting("TELEGRAM_CHAT_ID", None, "Chat that the bot writes to")
    pagerduty_routing_key: SecretStr | None = _setting("PAGERDUTY_ROUTING_KEY", None, "Key of an Events v2 integration")
    webhook_url: SecretStr | None = _setting("WEBHOOK_URL", None, "Address that gets alerts as signed JSON")
    webhook_secret: SecretStr | None = _setting("WEBHOOK_SECRET", None, "Key of the signature")
    watchdog_ping_url: SecretStr | None = _setting("WATCHDOG_PING_URL", None, "Who misses the watchdog's GET tells")

    @property
    def active_channels(self) -> tuple[str, ...]:
        """The channels that alerts go to; none where notifications are not enabled."""
        return self.notification_channels if self.notifications_enabled else ()

    @property
    def routes(self) -> Routes:
        """Who is told what, and when."""
        return Routes(self.notification_routes, self.notification_escalation, self.notification_quiet_hours)

    @field_validator("notification_routes", "notification_escalation", "notification_quiet_hours", mode="before")
    @classmethod
    def _parsed(cls, value: object, info: ValidationInfo) -> object:
        parse = {"notification_routes": parse_routes, "notification_escalation": parse_escalation}
        return parse.get(info.field_name or "", parse_quiet_hours)(value) if isinstance(value, str) else value

    @field_validator("notification_channels", "email_to", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        parts = value.split(",") if isinstance(value, str) else value
        if not isinstance(parts, list | tuple) or not all(isinstance(part, str) for part in parts):
            return value
        return tuple(dict.fromkeys(part.strip() for part in parts if part.strip()))

    @field_validator("notification_channels")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        names = tuple(dict.fromkeys(name.lower() for name in value))
        if unknown := [name for name in names if name not in NEEDS]:
            raise ValueError(_no_channels(unknown))
        return names

    @field_validator("smtp_host", "smtp_username", "email_from", "slack_channel", "telegram_chat_id", mode="before")
    @classmethod
    def _without_spaces_around(cls, value: object) -> object:
        return value.strip() or None if isinstance(value, str) else value

    @field_validator("smtp_host")
    @classmethod
    def _is_a_host(cls, value: str | None) -> str | None:
        """A name or an IP address, v6 without brackets."""
        if value is None or _HOST.fullmatch(value):
            return value
        try:
            ipaddress.ip_address(value)
        except ValueError:
            raise ValueError(
                "this is no host; give its name alone, such as mail.example.org: the port goes into SMTP_PORT, and"
                " smtp:// is left out"
            ) from None
        return value

    @field_validator("smtp_security", mode="before")
    @classmethod
    def _in_small_letters(cls, value: object) -> object:
        return value.strip().lower() if isinstance(value, str) else value

    @field_validator("email_from", "email_to")
    @classmethod
    def _is_an_address(cls, value: str | tuple[str, ...] | None) -> str | tuple[str, ...] | None:
        for text in (value,) if isinstance(value, str) else value or ():
            if not _ADDRESS.fullmatch(parseaddr(text)[1]) or any(not character.isprintable() for character in text):
                raise ValueError("this is no e-mail address; give one such as ops@example.org, several with commas")
        return value

    @field_validator("slack_webhook_url", "discord_webhook_url", "webhook_url", "watchdog_ping_url")
    @classmethod
    def _is_a_url(cls, value: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        if value is None:
            return None
        try:
            url = urlsplit(value.get_secret_value().strip())
            whole = url.scheme in ("https", "http") and bool(url.hostname) and url.port != 0
        except ValueError:
            whole = False
        if not whole or any(not character.isprintable() for character in value.get_secret_value()):
            raise ValueError("this is no address; give one that begins with https://")
        if url.username is not None or url.password is not None:
            raise ValueError("a name and password in an address are not sent; leave out what stands before @")
        if url.fragment:
            raise ValueError("of an address, what follows # is not sent; leave it out")
        # the address itself is the password of these services
        if url.scheme == "http" and info.field_name != "webhook_url" and not _is_this_machine(url.hostname or ""):
            raise ValueError("an http:// address is sent for everybody to read; give one that begins with https://")
        return SecretStr(value.get_secret_value().strip())

    @field_validator(
        "smtp_password", "slack_bot_token", "telegram_bot_token", "pagerduty_routing_key", "webhook_secret"
    )
    @classmethod
    def _is_a_key(cls, value: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        text = value.get_secret_value() if value else ""
        if info.field_name == "smtp_password" or value is None:
            return value  # see _can_log_in: it may hold spaces
        if not text.strip():
            return None
        if any(c.isspace() or not c.isprintable() or not c.isascii() for c in text.strip()):
            raise ValueError("this is no key: it holds a space or a sign that keys do not have")
        return SecretStr(text.strip())

    @field_validator("smtp_username", "smtp_password")
    @classmethod
    def _can_log_in(cls, value: str | SecretStr | None) -> str | SecretStr | None:
        text = value.get_secret_value() if isinstance(value, SecretStr) else value or ""
        if not text.isascii() or not text.replace(" ", "").isprintable():
            raise ValueError(
                "a login by SMTP takes the letters, digits and signs of ASCII alone; this holds another sign"
            )
        return value

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        problems = [problem for name in self.active_channels if (problem := self._missing(name))]
        routed = {
            "NOTIFICATION_ROUTES": [name for names in self.notification_routes.values() for name in names],
            "NOTIFICATION_ESCALATION": [name for names in self.notification_escalation for name in names],
        }
        for variable, names in routed.items():
            others = [name for name in dict.fromkeys(names) if name not in self.notification_channels]
            if unknown := [name for name in others if name not in NEEDS]:
                problems.append(f"{variable}: {_no_channels(unknown)}")
            elif others:
                problems.append(f"{variable} names {', '.join(others)}; name it in NOTIFICATION_CHANNELS too")
        if self.active_channels and not problems:
            problems += self._nobody_hears()
        if "email" in self.active_channels and self.smtp_host:
            if bool(self.smtp_username) != bool(self.smtp_password):
                missing = "SMTP_PASSWORD" if self.smtp_username else "SMTP_USERNAME"
                problems.append(f"the channel email lacks {missing}: a login needs both, or neither is set")
            if self.smtp_security == "none" and not _is_this_machine(self.smtp_host):
                problems.append("SMTP_SECURITY is none, which is for this machine alone; give starttls or ssl")
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _nobody_hears(self) -> list[str]:
        """The severities that reach no channel; INFO and WARNING may be routed to none."""
        deaf = [s for s in Severity if not self.routes.channels_of(Alert(s, "", "", "", ""), self.active_channels)]
        routed = [s for s in deaf if s in self.notification_routes and s.rank >= Severity.ERROR.rank]
        problems = [f"{s} reaches no channel; name one for it in NOTIFICATION_ROUTES" for s in routed]
        if left := [s for s in deaf if s not in self.notification_routes]:
            one = len(self.active_channels) == 1
            problems.append(
                f"the channel{' ' if one else 's '}{', '.join(self.active_channels)} {'is' if one else 'are'} named in"
                f" NOTIFICATION_ESCALATION only, so nobody hears of {', '.join(left)}; name"
                f" {'it' if one else 'them'} in NOTIFICATION_ROUTES too"
            )
        return problems

    def unused(self, name: str) -> list[str]:
        """What is set of a channel's way that was begun, where it goes another way; such as a token without a channel.

        >>> ChannelSettings.model_validate({"SLACK_BOT_TOKEN": "t", "SLACK_WEBHOOK_URL": "https://x"}).unused("slack")
        ['SLACK_BOT_TOKEN is not used without SLACK_CHANNEL']
        """
        unused = []
        for group in NEEDS[name]:
            there = [variable for variable in group if getattr(self, variable.lower())]
            missing = [variable for variable in group if variable not in there]
            if there and missing:
                unused.append(f"{' and '.join(there)} is not used without {' and '.join(missing)}")
        return unused

    def _missing(self, name: str) -> str | None:
        """What a channel lacks, of several ways the one that was begun; None where it has one whole."""
        lacking = {group: [v for v in group if not getattr(self, v.lower())] for group in NEEDS[name]}
        if not all(lacking.values()):
            return None
        begun = [missing for group, missing in lacking.items() if 0 < len(missing) < len(group)]
        return f"the channel {name} lacks {', or '.join(map(' and '.join, begun or lacking.values()))}"


def _no_channels(names: Sequence[str]) -> str:
    return f"no channel is called {', '.join(names)}; give any of {', '.join(NEEDS)}"


def _is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
