"""Is a secret of a channel ever written anywhere: outbox, audit trail, logs, terminal, errors?"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from trading_ops.audit.sqlite import SqliteStore
from trading_ops.doctor.records import channels as doctor_lines
from trading_ops.notifications.backoff import Backoff
from trading_ops.notifications.channel import DeliveryError
from trading_ops.notifications.channels.discord import DiscordChannel
from trading_ops.notifications.channels.email import EmailChannel
from trading_ops.notifications.channels.pagerduty import PagerDutyChannel
from trading_ops.notifications.channels.slack import SlackChannel
from trading_ops.notifications.channels.telegram import TelegramChannel
from trading_ops.notifications.channels.webhook import WebhookChannel
from trading_ops.notifications.configuration import ChannelSettings
from trading_ops.notifications.outbox import Outbox
from trading_ops_tests.conftest import QuietSettings
from trading_ops_tests.notifications.test_outbox import ALERT
from trading_ops_tests.planted import FIELDS, found_in, plant
from trading_ops_tests.servers.bot import make_authority
from trading_ops_tests.servers.smtp import MailServer
from trading_ops_tests.servers.vendors import Answer, Asked, VendorServer

SETTINGS = [name for name in FIELDS if name in ChannelSettings.model_fields]


def echo(asked: Asked) -> Answer:
    """A server that repeats everything it was told, the secrets too."""
    heard = f"{asked.path} {asked.headers} {asked.body.decode('ascii', 'replace')}"
    return Answer(500, {"error": heard, "message": heard, "description": heard}, {"X-Echo": asked.path})


def refusing_in_plain_text(asked: Asked) -> Answer:
    return Answer(403, f"POST http://127.0.0.1{asked.path} {asked.headers.get('authorization')}".encode())


def hanging(asked: Asked) -> Answer:
    return Answer(200, asked.body, hang_s=2.0)


def breaking(asked: Asked) -> Answer:
    return Answer(reset=True)


@pytest.mark.parametrize(
    "mood",
    [echo, refusing_in_plain_text, hanging, breaking, None],
    ids=lambda mood: mood.__name__ if mood else "absent",
)
def test_B121_no_secret_is_written_anywhere(tmp_path: Path, capfd, mood: Callable[[Asked], Answer] | None):
    planted = {name: secret for name, secret in plant().items() if name in SETTINGS}
    log = logging.FileHandler(tmp_path / "log", encoding="utf-8")
    levels = {name: logging.getLogger(name).level for name in ("", "httpx", "httpcore", "slack_sdk")}
    logging.getLogger().addHandler(log)
    for name in levels:
        logging.getLogger(name).setLevel(logging.DEBUG)
    written: list[str] = []
    try:
        with ExitStack() as stack:
            server = stack.enter_context(VendorServer(mood or echo))
            url = server.url if mood else "http://127.0.0.1:9"
            mail = stack.enter_context(MailServer(make_authority(tmp_path), "none"))  # type: ignore[arg-type]
            planted_in = {
                **{name: f"{url}/{quote(planted[name], safe='')}" for name in SETTINGS if name.endswith("_url")},
                **{name: planted[name] for name in SETTINGS if not name.endswith("_url")},
            }
            settings = QuietSettings(**planted_in)
            written.append(f"{settings!r}{settings!s}{settings.model_dump()}{settings.model_dump_json()}")
            channels = channels_of(settings, url, mail.port if mood else 9)
            store = stack.enter_context(SqliteStore(tmp_path / "audit.db"))
            box = Outbox(store, channels, backoff=Backoff(first_s=0))
            written += [str(box.publish(ALERT)), str(box.drain()), str(box.retry()), str(box.deliveries())]
            services: Any = type("Services", (), {"channels": channels, "settings": QuietSettings()})
            written.append(str(list(doctor_lines(services))))
            for channel in channels.values():
                with pytest.raises(DeliveryError) as refused:
                    channel.send(ALERT, possible_duplicate=False)
                written.append(f"{refused.value!s}{refused.value!r}{refused.getrepr(style='native', chain=True)}")
                assert str(refused.value)
                logging.getLogger().exception("as anybody might", exc_info=refused.value)
    finally:
        logging.getLogger().removeHandler(log)
        log.close()
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
    written += [str(stream) for stream in capfd.readouterr()]
    written += [path.read_bytes().decode("latin-1") for path in tmp_path.iterdir() if path.is_file()]
    everything = "\n".join(written)
    assert "outbox" in everything
    assert found_in(everything, planted) == []


def channels_of(settings: QuietSettings, url: str, mail_port: int) -> dict[str, Any]:
    def told(name: str) -> str:
        return getattr(settings, name).get_secret_value()

    made = {
        "slack": SlackChannel(webhook_url=told("slack_webhook_url"), timeout_s=0.4),
        "slack_bot": SlackChannel(
            bot_token=told("slack_bot_token"), channel="#ops", base_url=f"{url}/api/", timeout_s=0.4
        ),
        "discord": DiscordChannel(webhook_url=told("discord_webhook_url"), timeout_s=0.4),
        "telegram": TelegramChannel(
            bot_token=told("telegram_bot_token"), chat_id="-1001", base_url=url, timeout_s=0.4
        ),
        "pagerduty": PagerDutyChannel(routing_key=told("pagerduty_routing_key"), base_url=url, timeout_s=0.4),
        "webhook": WebhookChannel(url=told("webhook_url"), secret=told("webhook_secret"), timeout_s=0.4),
        "email": EmailChannel(
            host="127.0.0.1", port=mail_port, security="none", username="ops", password=told("smtp_password"),
            sender="ops@example.org", recipients=["a@example.org"], timeout_s=2.0,
        ),
    }  # fmt: skip
    for name, channel in made.items():
        channel.name = name
    return made
