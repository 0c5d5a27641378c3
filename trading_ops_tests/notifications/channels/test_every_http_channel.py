"""Does every HTTP channel deliver whatever an alert says, and name what goes wrong without a secret?"""

from __future__ import annotations

import errno
import logging
import os
import re
import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from trading_ops.notifications.alert import Alert, Severity, Step
from trading_ops.notifications.channel import DeliveryError
from trading_ops.notifications.channels.http import retry_after
from trading_ops.notifications.channels.redaction import Redaction
from trading_ops_tests.notifications.channels.rigs import RIGS, Rig
from trading_ops_tests.servers.vendors import Answer, VendorServer

ALERT = Alert(Severity.CRITICAL, "guard/rsi/2025-03-01", "rsi lost 12 %", "above 10 %", "Look, then resume.",
              "2025-03-01", {"daily_loss_pct": 12.0, "limit_pct": 10.0})  # fmt: skip
HTML = b"<html><body>secret page</body></html>"
NASTY = [
    "<!channel> <@U1> <#C1> & <b>bold</b> </b> &amp; &lt;",
    "@everyone @here **bold** _it_ `code` ```block``` [a](https://x.y) > quote # head ~~gone~~ ||spoiler||",
    "\0\x01\x1b[31mred\x7f\x85\u2028next\r\nline\rend",
    "\u202eevil\u202c \u2066x\u2069 \u200f \ufeff \u200b",
    "\ud800 half \udfff \ufffe \U000e0041",
    "日本語 🚨👩‍👩‍👧 Zürich ±3 %",
    " \n\t ",
    "",
    "&" * 3_100,
    "<" * 5_000,
    "`" * 5_000,
    "\\" * 5_000,
    "🚨" * 5_000,
    "x" * 100_000,
    "\n" * 5_000 + "- a\n1. b\n+ c",
]


@pytest.fixture(params=RIGS)
def rig(request: pytest.FixtureRequest):
    return RIGS[request.param]


@pytest.fixture
def server(rig) -> Iterator[VendorServer]:
    with VendorServer(rig.judge) as server:
        yield server


def refusal(rig, server: VendorServer, *answers: Answer, timeout_s: float = 5.0) -> DeliveryError:
    server.faults.extend(answers)
    with pytest.raises(DeliveryError) as refused:
        rig.make(server.url, timeout_s).send(ALERT, possible_duplicate=False)
    assert refused.value.__cause__ is None
    assert not any(secret.strip("/") in str(refused.value) for secret in rig.secrets)
    return refused.value


def test_an_alert_says_what_why_the_numbers_and_what_to_do(rig, server):
    rig.make(server.url, 5.0).send(ALERT, possible_duplicate=False)
    (asked,) = server.taken
    said = str(asked.document)
    for part in ("rsi lost 12 %", "above 10 %", "Look, then resume.", "guard/rsi/2025-03-01"):
        assert part in said, part
    assert "daily loss: 12 %" in said or "'daily_loss_pct': 12.0" in said
    assert "possible duplicate" not in said
    rig.make(server.url, 5.0).send(ALERT, possible_duplicate=True)
    assert "possible" in str(server.taken[1].document).replace("'possible_duplicate': False", "")


@pytest.mark.parametrize(
    ("status", "permanent"),
    [(301, True), (400, True), (401, True), (403, True), (404, True), (410, True), (413, True), (408, False),
     (429, False), (500, False), (502, False), (503, False), (504, False)],
)  # fmt: skip
def test_B110_a_status_is_named_and_says_whether_to_try_again(rig, server, status, permanent):
    error = refusal(rig, server, Answer(status, HTML))
    assert (f"HTTP {status}" in str(error), error.permanent) == (True, permanent)
    assert "secret page" not in str(error)


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refusal_of_who_asks_names_the_settings_to_look_at(rig, server, status):
    assert re.search("; see [A-Z_]+( and [A-Z_]+)?$", str(refusal(rig, server, Answer(status, HTML))))


def test_a_service_without_tls_behind_an_https_address_names_its_setting():
    with VendorServer(RIGS["webhook"].judge) as server:
        channel = RIGS["webhook"].make(server.url.replace("http:", "https:"), 5.0)
        with pytest.raises(DeliveryError, match="; see WEBHOOK_URL and WEBHOOK_SECRET: is it https"):
            channel.send(ALERT, possible_duplicate=False)


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        ("invalid_auth", "see SLACK_BOT_TOKEN"),
        ("not_in_channel", "invite the bot to the channel, or see SLACK_CHANNEL"),
    ],
)
def test_what_slack_refuses_says_what_to_do(code, advice):
    with VendorServer(RIGS["slack_bot"].judge) as server:
        error = refusal(RIGS["slack_bot"], server, Answer(200, {"ok": False, "error": code}))
    assert str(error) == f"Slack refused it (HTTP 200): {code}; {advice}"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_refused_and_its_goal_hears_nothing(rig, server, status):
    with VendorServer(lambda asked: Answer(200, {"ok": True})) as other:
        error = refusal(rig, server, Answer(status, b"", {"Location": f"{other.url}/elsewhere"}))
    assert (f"HTTP {status}" in str(error), error.permanent) == (True, True)
    assert other.asked == []


def test_a_proxy_in_the_environment_hears_nothing(rig, server, monkeypatch):
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with VendorServer(lambda asked: Answer(200, {"ok": True})) as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        rig.make(server.url, 5.0).send(ALERT, possible_duplicate=False)
    assert (len(server.taken), proxy.asked) == (1, [])


def test_a_name_that_nobody_knows_leaves_nothing_in_doubt(rig):
    with pytest.raises(DeliveryError, match="no connection") as refused:
        rig.make("http://no-such-host.invalid", 5.0).send(ALERT, possible_duplicate=False)
    assert (refused.value.permanent, refused.value.in_doubt) == (False, False)


def test_a_machine_that_can_open_no_file_now_may_later(monkeypatch):
    def no_file_left() -> Any:
        raise OSError(errno.EMFILE, "too many open files")

    monkeypatch.setattr("trading_ops.notifications.channels.http._trusted", no_file_left)
    with pytest.raises(DeliveryError, match="OSError") as refused:
        RIGS["webhook"].make("https://127.0.0.1:9", 1.0).send(ALERT, possible_duplicate=False)
    assert (refused.value.permanent, refused.value.in_doubt) == (False, False)


class Connections(VendorServer):
    """Keeps connections open, and the sockets of those that were made."""

    def __init__(self, rig: Rig) -> None:
        super().__init__(lambda asked: rig.judge(asked)._replace(headers={"Connection": "keep-alive"}))
        self.made: list[socket.socket] = []

    def process_request(self, request: Any, client_address: Any) -> None:
        self.made.append(request)
        super().process_request(request, client_address)


def test_one_message_after_the_other_goes_over_one_connection(rig):
    with Connections(rig) as server:
        channel = rig.make(server.url, 5.0)
        for _ in range(3):
            channel.send(ALERT, possible_duplicate=False)
        assert (len(server.taken), len(server.made)) == (3, 1)


def test_a_connection_that_the_server_has_closed_in_between_is_made_anew(rig):
    with Connections(rig) as server:
        channel = rig.make(server.url, 5.0)
        for _ in range(2):
            channel.send(ALERT, possible_duplicate=False)
            server.made[-1].shutdown(socket.SHUT_RDWR)
        assert (len(server.taken), len(server.made)) == (2, 2)


def test_a_fork_makes_a_connection_of_its_own(rig):
    with Connections(rig) as server:
        channel = rig.make(server.url, 5.0)
        channel.send(ALERT, possible_duplicate=False)
        if not (child := os.fork()):
            try:
                channel.send(ALERT, possible_duplicate=False)
                os._exit(0)
            finally:
                os._exit(1)
        assert os.waitpid(child, 0)[1] == 0
        channel.send(ALERT, possible_duplicate=False)
        assert (len(server.taken), len(server.made)) == (3, 2)


def test_an_endless_answer_is_read_to_a_bound(rig, server):
    refusal(rig, server, Answer(500, b"x" * 10_000_000))


def test_B110_a_server_that_hangs_is_a_timeout_that_may_have_arrived(rig, server):
    error = refusal(rig, server, Answer(200, hang_s=5.0), timeout_s=0.2)
    assert "timeout" in str(error)
    assert (error.permanent, error.in_doubt) == (False, True)


def test_a_connection_that_breaks_leaves_the_message_in_doubt(rig, server):
    error = refusal(rig, server, Answer(reset=True))
    assert (error.permanent, error.in_doubt) == (False, True)


def test_where_nobody_listens_nothing_is_in_doubt(rig):
    with pytest.raises(DeliveryError, match=r"no connection to 127\.0\.0\.1:9: ") as refused:
        rig.make("http://127.0.0.1:9", 2.0).send(ALERT, possible_duplicate=False)
    assert (refused.value.permanent, refused.value.in_doubt) == (False, False)


@pytest.mark.parametrize(
    ("headers", "body", "asked"),
    [({"Retry-After": "7"}, b"", 7.0), ({"Retry-After": "1.5"}, HTML, 1.5), ({}, b"", None),
     ({"Retry-After": "soon"}, b"", None), ({"Retry-After": "-3"}, b"", 0.0),
     ({}, b'{"retry_after": ' + b"9" * 400 + b"}", None)],
)  # fmt: skip
def test_B108_a_rate_limit_says_how_long_to_wait(rig, server, headers, body, asked):
    error = refusal(rig, server, Answer(429, body, headers))
    assert "Rate limited" in str(error)
    assert (error.retry_after_s, error.permanent) == (asked, False)


def test_a_rate_limit_until_a_date_is_the_seconds_to_that_date(rig, server):
    date = format_datetime(datetime.now(UTC) + timedelta(minutes=10), usegmt=True)
    error = refusal(rig, server, Answer(429, b"", {"Retry-After": date}))
    assert error.retry_after_s is not None
    assert 500 < error.retry_after_s <= 600


NEVER = "Sat, 01 Mar 2025 00:00:00 +" + "9" * 20


@pytest.mark.parametrize("header", ["", "nan", "inf", "1e999", "Sat, 99 Mar 2025", NEVER, "\0", "[]"])
def test_a_retry_after_that_cannot_be_read_is_none(header):
    assert retry_after(header, datetime.now(UTC)) is None


def test_an_answer_that_is_not_the_services_own_is_no_success(rig, server):
    """A captive portal answers everything with 200."""
    if rig is RIGS["webhook"]:
        pytest.skip("any 2xx means taken")
    assert "HTTP 2" in str(refusal(rig, server, Answer(200, HTML)))


def test_B111_what_is_not_configured_says_which_variable(rig):
    with pytest.raises(DeliveryError, match=r"is not configured: set [A-Z_]+") as refused:
        rig.without().send(ALERT, possible_duplicate=False)
    assert refused.value.permanent
    assert rig.without().target == "not configured"


def test_B121_no_secret_in_any_log_or_target(rig, server, caplog):
    caplog.set_level(logging.DEBUG)
    server.faults.append(Answer(500, b"server.url POST " + "".join(rig.secrets).encode()))
    channel = rig.make(server.url, 5.0)
    with pytest.raises(DeliveryError) as refused:
        channel.send(ALERT, possible_duplicate=False)
    channel.send(ALERT, possible_duplicate=False)
    written = f"{caplog.text}{channel.target}{refused.value}{refused.value!r}"
    assert "GEHEIM" not in written


def test_B121_an_error_that_quotes_an_address_keeps_its_host_alone():
    redacted = Redaction("https://hooks.slack.com/services/T000/B000/abcdefgh", "token-1234")
    said = redacted("POST https://hooks.slack.com/services/T000/B000/abcdefgh?x=1 failed, /services/T000/B000/abcdefgh,"
                    " abcdefgh token-1234 dG9rZW4tMTIzNA==")  # fmt: skip
    assert said == "POST [hooks.slack.com] failed, [secret], [secret] [secret] [secret]"


@pytest.mark.parametrize("severity", [*Severity, "NOTICE", "", "<b>@everyone\0"])
def test_B122_every_level_is_told_and_an_unknown_one_is_neutral(rig, server, severity):
    rig.make(server.url, 5.0).send(Alert(severity, "k", "w", "y", "d"), possible_duplicate=False)
    assert len(server.taken) == 1


@pytest.mark.parametrize("text", NASTY, ids=range(len(NASTY)))
def test_whatever_a_text_holds_the_service_takes_it(rig, server, text):
    numbers = {"outer": {text[:500]: text}, "items": [text] * 5, "many": {str(i): text[:50] for i in range(200)}}
    channel = rig.make(server.url, 5.0)
    channel.send(Alert(Severity.ERROR, text[:300] + "k", text, text, text, text[:50], numbers), possible_duplicate=True)
    channel.send(Alert(Severity.ERROR, "", text, "", ""), possible_duplicate=False)
    assert len(server.taken) == 2
    assert not set("\0\x1b\x7f\r\u202e\u200f\ud800") & set("".join(strings(server.taken[0].document)))


@pytest.mark.parametrize("number", [10**400, -(10**400), 1e308, -1e-308])
def test_whatever_a_number_is_the_service_takes_it(rig, server, number):
    numbers = {"loss_usdt": number, "loss_pct": number, "trades": number, "all": [number]}
    rig.make(server.url, 5.0).send(Alert(Severity.ERROR, "k", "w", "y", "d", None, numbers), possible_duplicate=False)
    assert len(server.taken) == 1


def strings(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for name, item in value.items():
            yield name
            yield from strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from strings(item)
    elif isinstance(value, str):
        yield value


PIECES = st.sampled_from([
    "<!channel>", "&", "<b>", "</b>", "<", ">", "@everyone", "**", "`", "```", "\\", "\0", "\u202e", "\ud83d", "🚨",
    "_", "[x](y)", "\n", "\r", "&amp;", "\x1b[0m", "|", "#", "- ", "1. ",
])  # fmt: skip
TEXTS = st.text() | st.lists(PIECES | st.text(max_size=5)).map("".join) | st.builds(
    lambda text, times: (text * times)[:100_000], st.lists(PIECES, min_size=1).map("".join), st.integers(1, 20_000)
)  # fmt: skip
NUMBERS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=8,
)
ALERTS = st.builds(
    Alert,
    severity=st.sampled_from(Severity) | st.text(max_size=10),
    dedup_key=TEXTS,
    what=TEXTS,
    why=TEXTS,
    what_to_do=TEXTS,
    day=st.none() | st.just("2025-03-01"),
    numbers=st.dictionaries(TEXTS, NUMBERS, max_size=4),
    done=TEXTS,
    link=st.none() | TEXTS | TEXTS.map("https://example.org/{}".format),
    incident=st.none() | TEXTS,
    step=st.sampled_from([step for step in Step if step is not Step.UPDATED]),  # which changes another message
    opening=st.none() | TEXTS,
    since=st.none() | TEXTS | st.datetimes().map(datetime.isoformat),
    picture=st.none() | st.dictionaries(st.sampled_from(["title", "days", "series"]) | TEXTS, NUMBERS, max_size=3),
)


def fuzzed(name: str, examples: int) -> None:
    rig = RIGS[name]
    with VendorServer(rig.judge) as server:
        channel = rig.make(server.url, 20.0)

        @settings(
            max_examples=examples,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.explicit, Phase.generate],  # the texts are too long to be made smaller
            database=None,
        )
        @given(alert=ALERTS, possible_duplicate=st.booleans())
        @example(alert=ALERT, possible_duplicate=True)
        def every_alert_is_taken(alert: Alert, possible_duplicate: bool) -> None:
            before = len(server.taken)
            channel.send(alert, possible_duplicate=possible_duplicate)
            assert len(server.taken) == before + 1
            server.taken[-1:] = [None]  # type: ignore[list-item]  # the bodies would fill the memory
            server.asked.clear()

        every_alert_is_taken()


@pytest.mark.parametrize("name", RIGS)
def test_fuzzed_alerts_are_taken(name):
    fuzzed(name, 60)


@pytest.mark.chaos
@pytest.mark.parametrize("name", RIGS)
def test_five_thousand_fuzzed_alerts_are_taken(name):
    fuzzed(name, 5_000)
