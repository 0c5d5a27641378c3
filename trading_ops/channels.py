"""Which channel does this configuration give, with its address and its key?"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import SecretStr

    from trading_ops.notifications.channel import Channel
    from trading_ops.notifications.configuration import ChannelSettings


def configured_channel(name: str, settings: ChannelSettings) -> Channel:
    """One channel as it is configured, chosen or not; raises KeyError for a name that is none."""
    return {
        "console": _console,
        "slack": _slack,
        "email": _email,
        "discord": _discord,
        "telegram": _telegram,
        "pagerduty": _pagerduty,
        "webhook": _webhook,
    }[name](settings)


def _console(settings: ChannelSettings) -> Channel:
    from trading_ops.notifications.channels.console import ConsoleChannel

    return ConsoleChannel()


def _slack(settings: ChannelSettings) -> Channel:
    from trading_ops.notifications.channels.slack import SlackChannel

    return SlackChannel(
        webhook_url=_told(settings.slack_webhook_url),
        bot_token=_told(settings.slack_bot_token),
        channel=settings.slack_channel,
    )


def _email(settings: ChannelSettings) -> Channel:
    from trading_ops.notifications.channels.email import EmailChannel

    return EmailChannel(
        host=settings.smtp_host,
        port=settings.smtp_port,
        security=settings.smtp_security,
        username=settings.smtp_username,
        password=_told(settings.smtp_password),
        sender=settings.email_from,
        recipients=settings.email_to,
    )


def _discord(settings: ChannelSettings) -> Channel:
    from trading_ops.notifications.channels.discord import DiscordChannel

    return DiscordChannel(webhook_url=_told(settings.discord_webhook_url))


def _telegram(settings: ChannelSettings) -> Channel:
    from trading_ops.notifications.channels.telegram import TelegramChannel

    token = _told(settings.telegram_bot_token)
    return TelegramChannel(bot_token=token, chat_id=settings.telegram_chat_id)


def _pagerduty(settings: ChannelSettings) -> Channel:
    from trading_ops.notifications.channels.pagerduty import PagerDutyChannel

    return PagerDutyChannel(routing_key=_told(settings.pagerduty_routing_key))


def _webhook(settings: ChannelSettings) -> Channel:
    from trading_ops.notifications.channels.webhook import WebhookChannel

    return WebhookChannel(url=_told(settings.webhook_url), secret=_told(settings.webhook_secret))


def _told(secret: SecretStr | None) -> str | None:
    return secret.get_secret_value() if secret else None
