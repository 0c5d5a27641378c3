"""Every channel with a server of its own that enforces what the real one does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from trading_ops.notifications.channels.discord import DiscordChannel
from trading_ops.notifications.channels.pagerduty import PagerDutyChannel
from trading_ops.notifications.channels.slack import SlackChannel
from trading_ops.notifications.channels.telegram import TelegramChannel
from trading_ops.notifications.channels.webhook import WebhookChannel
from trading_ops_tests.servers import vendors
from trading_ops_tests.servers.vendors import Answer, Asked


@dataclass(frozen=True)
class Rig:
    """`make(url, timeout_s)` gives the real channel for a server whose rules are `judge`."""

    judge: Callable[[Asked], Answer]
    make: Callable[[str, float], Any]
    secrets: tuple[str, ...]
    without: Callable[[], Any]  # nothing configured


RIGS = {
    "slack": Rig(
        vendors.slack_webhook,
        lambda url, timeout_s: SlackChannel(webhook_url=url + vendors.SLACK_PATH, timeout_s=timeout_s),
        (vendors.SLACK_PATH,),
        SlackChannel,
    ),
    "slack_bot": Rig(
        vendors.slack_api,
        lambda url, timeout_s: SlackChannel(
            bot_token=vendors.SLACK_TOKEN, channel=vendors.CHANNEL, base_url=f"{url}/api/", timeout_s=timeout_s
        ),
        (vendors.SLACK_TOKEN,),
        SlackChannel,
    ),
    "discord": Rig(
        vendors.discord,
        lambda url, timeout_s: DiscordChannel(webhook_url=url + vendors.DISCORD_PATH, timeout_s=timeout_s),
        (vendors.DISCORD_PATH,),
        lambda: DiscordChannel(webhook_url=None),
    ),
    "telegram": Rig(
        vendors.telegram,
        lambda url, timeout_s: TelegramChannel(
            bot_token=vendors.TELEGRAM_TOKEN, chat_id=vendors.CHAT, base_url=url, timeout_s=timeout_s
        ),
        (vendors.TELEGRAM_TOKEN,),
        lambda: TelegramChannel(bot_token=None, chat_id=vendors.CHAT),
    ),
    "pagerduty": Rig(
        vendors.pagerduty,
        lambda url, timeout_s: PagerDutyChannel(routing_key=vendors.ROUTING_KEY, base_url=url, timeout_s=timeout_s),
        (vendors.ROUTING_KEY,),
        lambda: PagerDutyChannel(routing_key=None),
    ),
    "webhook": Rig(
        vendors.webhook,
        lambda url, timeout_s: WebhookChannel(
            url=url + vendors.WEBHOOK_PATH, secret=vendors.WEBHOOK_SECRET, timeout_s=timeout_s
        ),
        (vendors.WEBHOOK_PATH, vendors.WEBHOOK_SECRET),
        lambda: WebhookChannel(url=None, secret="key"),
    ),
}
