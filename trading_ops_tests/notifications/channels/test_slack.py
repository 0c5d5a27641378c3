"""What does Slack get, and what do its own errors mean?"""

import pytest

from trading_ops.notifications.alert import Alert, Severity
from trading_ops.notifications.channel import DeliveryError
from trading_ops.notifications.channels.slack import NEUTRAL, STYLES, SlackChannel, payload_of
from trading_ops.notifications.text import MARKER, message_of
from trading_ops_tests.servers.vendors import CHANNEL, SLACK_TOKEN, Answer, VendorServer, slack_api, units


def payload(**changes):
    fields = {"severity": Severity.ERROR, "dedup_key": "k", "what": "w", "why": "y", "what_to_do": "d", **changes}
    return payload_of(message_of(Alert(**fields), possible_duplicate=False))


def texts(document):
    (attachment,) = document["attachments"]
    parts = [block["text"] if block["type"] == "section" else block["elements"][0] for block in attachment["blocks"]]
    return [document["text"], *(part["text"] for part in parts)]


def test_B113_mentions_are_dead_and_the_three_characters_escaped():
    document = payload(what="<!channel> a & b", why="<@U123> <#C1> <http://x|y>")
    assert texts(document)[0] == ":x: *ERROR*  &lt;!channel&gt; a &amp; b"
    assert texts(document)[1] == "*Why*\n&lt;@U123&gt; &lt;#C1&gt; &lt;http://x|y&gt;"


@pytest.mark.parametrize("sign", ["x", "&", "🚨", "<"])
def test_B118_63000_characters_are_cut_with_a_marker_within_a_section(sign):
    document = payload(why=sign * 63_000, what=sign * 63_000)
    assert all(units(text) <= 3_000 for text in texts(document))
    assert texts(document)[1].endswith(MARKER)
    assert document["text"].endswith(MARKER)


@pytest.mark.parametrize(
    ("severity", "style"), [*STYLES.items(), ("NOTICE", NEUTRAL)], ids=lambda value: str(value)[:8]
)
def test_B122_a_level_is_a_colour_and_an_emoji(severity, style):
    document = payload(severity=severity)
    assert document["attachments"][0]["color"] == style[0]
    assert texts(document)[0].startswith(style[1])


def test_B123_what_is_nested_is_indented_and_a_list_counted():
    block = texts(payload(numbers={"outer": {"inner1": "v", "deeper": {"x": 1.5}}, "items": [1, 2, 3, 4, 5]}))[3]
    assert block == "```items: [5 items] 1, 2, 3, …\nouter:\n  inner1: v\n  deeper:\n    x: 1.5```"


@pytest.mark.parametrize(
    ("error", "permanent"),
    [("invalid_auth", True), ("channel_not_found", True), ("not_in_channel", True), ("is_archived", True),
     ("msg_too_long", True), ("token_revoked", True), ("internal_error", False), ("service_unavailable", False)],
)  # fmt: skip
def test_B110_an_error_that_comes_with_status_200_is_named(error, permanent):
    with VendorServer(slack_api) as server:
        server.faults.append(Answer(200, {"ok": False, "error": error}))
        channel = SlackChannel(bot_token=SLACK_TOKEN, channel=CHANNEL, base_url=f"{server.url}/api/")
        with pytest.raises(DeliveryError) as refused:
            channel.send(Alert(Severity.INFO, "k", "w", "", ""), possible_duplicate=False)
    assert (error in str(refused.value), refused.value.permanent) == (True, permanent)


def test_a_rate_limit_that_comes_with_status_200_is_one_too():
    with VendorServer(slack_api) as server:
        server.faults.append(Answer(200, {"ok": False, "error": "ratelimited"}, {"Retry-After": "3"}))
        channel = SlackChannel(bot_token=SLACK_TOKEN, channel=CHANNEL, base_url=f"{server.url}/api/")
        with pytest.raises(DeliveryError, match="Rate limited") as refused:
            channel.send(Alert(Severity.INFO, "k", "w", "", ""), possible_duplicate=False)
    assert (refused.value.retry_after_s, refused.value.permanent) == (3.0, False)


def test_a_bot_is_asked_rather_than_a_webhook_and_neither_shows_its_secret():
    bot = SlackChannel(bot_token="xoxb-GEHEIM", channel="#ops", webhook_url="https://hooks.slack.com/services/GEHEIM")
    assert bot.target == "#ops, by a bot"
    assert SlackChannel(webhook_url="https://hooks.slack.com/services/GEHEIM").target == "a webhook at hooks.slack.com"
