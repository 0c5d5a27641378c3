"""Which components does this configuration have, and how is each looked at?"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

from trading_ops.bot import replies
from trading_ops.bot.client import BotError
from trading_ops.bot.http import HEALTH
from trading_ops.bot.records import BotHealth
from trading_ops.health.checkup import Probe, ProbeFailed, check_up
from trading_ops.health.rules import LABELS, Limits, Status, Verdict, judge_answer
from trading_ops.market.candles import CandleError

if TYPE_CHECKING:
    from trading_ops.health.http import Reply
    from trading_ops.services import Services

PATIENCE = 0.9  # of the time that a look may take: a client's own timeout tells more


def check_components(services: Services) -> list[Verdict]:
    """A verdict on each component, in the order of LABELS; those that are not looked at are not configured."""
    settings = services.settings
    found = {verdict.component: verdict for verdict in check_up(probes(services), timeout_s=settings.health_timeout_s)}
    off = dict.fromkeys(settings.health_off, "switched off")
    return [found.get(name) or Verdict(name, Status.NOT_CONFIGURED, off.get(name, "no address")) for name in LABELS]


def limits_of(services: Services) -> Limits:
    """What is slow, full and deep."""
    s = services.settings
    return Limits(
        slow_s=s.health_slow_s,
        disk_warning_pct=s.health_disk_warning_pct,
        disk_critical_pct=s.health_disk_critical_pct,
        memory_warning_pct=s.health_memory_warning_pct,
        memory_critical_pct=s.health_memory_critical_pct,
        queue_depth=s.health_queue_depth,
    )


def probes(services: Services) -> list[Probe]:
    """A probe for each component that is configured and not switched off.

    What they need is imported and built here, so that no look has to wait for it.
    """
    found = [_engine(services), *_over_http(services), *_servers(services), *_machine(services), _candles(services)]
    return [probe for probe in found if probe.component not in services.settings.health_off]


def _engine(services: Services) -> Probe:
    settings, limits = services.settings, limits_of(services)
    if settings.bot_url is None:
        return Probe("engine", lambda: _paper(services, limits), services.bot_label)
    from trading_ops.health.http import look_over_http, shown

    token = settings.bot_token.get_secret_value() if settings.bot_token else ""
    url = f"{str(settings.bot_url).rstrip('/')}{HEALTH}"
    look = partial(
        look_over_http,
        *("engine", url, limits),
        timeout_s=settings.health_timeout_s,
        headers={"Authorization": f"Bearer {token}"} if token else {},
        ca_file=settings.bot_ca_file,
        expected=settings.health_expected.get("engine", ()),
        complaint=partial(_complaint, token),
    )
    return Probe("engine", look, shown(url))


def _paper(services: Services, limits: Limits) -> Verdict:
    began = time.monotonic()
    try:
        health = services.bot.health()
    except (BotError, CandleError) as error:
        raise ProbeFailed(str(error)) from None
    complaint = "" if health.healthy else health.detail or "it says so"
    return judge_answer("engine", time.monotonic() - began, limits, complaint=complaint)


def _complaint(token: str, reply: Reply) -> str:
    """What is wrong with the bot's answer."""
    from trading_ops.bot.transport import without

    body = without(token, reply.body)
    if not 200 <= reply.code < 300:
        return replies.said(body)
    try:
        health = replies.one(replies.payload(body, reply.content_type, HEALTH).data, BotHealth, HEALTH)
    except BotError as error:
        return str(error)
    return "" if health.healthy else health.detail or "it says that it is not well"


def _over_http(services: Services) -> list[Probe]:
    s = services.settings
    given = {"ai_service": s.ai_service_url, "frontend": s.frontend_url}
    addresses = {name: str(url) for name, url in given.items() if url is not None}
    if not addresses:
        return []
    from trading_ops.health.http import look_over_http, shown

    look = partial(look_over_http, limits=limits_of(services), timeout_s=s.health_timeout_s)
    return [
        Probe(name, partial(look, name, url, expected=s.health_expected.get(name, ())), shown(url))
        for name, url in addresses.items()
    ]


def _servers(services: Services) -> list[Probe]:
    s, limits = services.settings, limits_of(services)
    if not (s.mongodb_uri or s.redis_url or s.broker_url):
        return []
    from trading_ops.health.http import shown
    from trading_ops.health.servers import look_at_mongodb, look_at_rabbitmq, look_at_redis

    patience_s = PATIENCE * s.health_timeout_s
    found = []
    if s.mongodb_uri is not None:
        look: Callable[[], Verdict] = partial(look_at_mongodb, s.store_uri, limits, timeout_s=patience_s)
        found.append(Probe("document_db", look, services.store_label))
    if s.redis_url is not None:
        url = s.redis_url.get_secret_value()
        found.append(Probe("cache", partial(look_at_redis, url, limits, timeout_s=patience_s), shown(url)))
    if s.broker_url is not None:
        url = s.broker_url.get_secret_value()
        look = partial(look_at_rabbitmq, url, s.health_queues, limits, timeout_s=patience_s)
        found.append(Probe("broker", look, shown(url)))
    return found


def _machine(services: Services) -> list[Probe]:
    from trading_ops.health.machine import look_at_disk, look_at_memory

    limits, folder = limits_of(services), services.settings.data_dir
    return [
        Probe("disk", lambda: look_at_disk(folder, limits), str(folder)),
        Probe("memory", lambda: look_at_memory(limits)),
    ]


def _candles(services: Services) -> Probe:
    from trading_ops.health.candles import look_at_candles

    fresh_within = timedelta(hours=services.settings.health_candles_hours)
    # a bot that does not answer is told as the engine's outage: its candles are unknown meanwhile
    return Probe("candles", lambda: look_at_candles(services, fresh_within), services.bot_label, silent=Status.UNKNOWN)
