"""What does Discord get?"""

import pytest

from trading_ops.notifications.alert import Alert, Severity
from trading_ops.notifications.channel import DeliveryError
from trading_ops.notifications.channels.discord import NEUTRAL, STYLES, DiscordChannel, escape, payload_of
from trading_ops.notifications.text import MARKER, message_of
from trading_ops_tests.servers.vendors import DISCORD_PATH, Answer, VendorServer, discord, units


def payload(**changes):
    fields = {"severity": Severity.ERROR, "dedup_key": "k", "what": "w", "why": "y", "what_to_do": "d", **changes}
    return payload_of(message_of(Alert(**fields), possible_duplicate=False))


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("@everyone", "@\u200beveryone"),
        ("@here ops@example.org", "@\u200bhere ops@example.org"),
        ("**b** _i_ ~~s~~ ||x||", r"\*\*b\*\* \_i\_ \~\~s\~\~ \|\|x\|\|"),
        ("`c` [a](b)", r"\`c\` \[a\]\(b\)"),
        ("# head\n> quote\n- item\n1. first", "\\# head\n\\> quote\n\\- item\n\\1. first"),
        ("-12.5 % and 3 - 2", "-12.5 % and 3 - 2"),
        ("<@123> <#1>", r"\<@123\> \<\#1\>"),
    ],
)
def test_B114_markdown_is_escaped_and_nobody_mentioned(text, escaped):
    assert escape(text) == escaped
    document = payload(why=text)
    assert document["allowed_mentions"] == {"parse": []}
    assert document["embeds"][0]["description"] == escaped


@pytest.mark.parametrize("empty", ["", " ", "\n\t", "\u200b"[:0]])
def test_B117_an_empty_value_is_left_out(empty):
    (embed,) = payload(what_to_do=empty, why=empty)["embeds"]
    assert (embed["fields"], "description" in embed) == ([], False)


def test_the_whole_stays_below_6000_characters():
    (embed,) = payload(what="*" * 9_000, why="_" * 9_000, what_to_do="~" * 9_000, numbers={"n": "x" * 9_000})["embeds"]
    parts = [embed["title"], embed["description"], embed["footer"]["text"]]
    parts += [part for field in embed["fields"] for part in (field["name"], field["value"])]
    assert sum(map(units, parts)) <= 6_000
    assert [part.endswith(("shortened]", r"shortened\]")) for part in parts[:2]] == [True, True]
    assert MARKER in embed["fields"][1]["value"]


@pytest.mark.parametrize(("severity", "style"), [*STYLES.items(), ("NOTICE", NEUTRAL)], ids=str)
def test_B122_a_level_is_a_colour_and_a_mark(severity, style):
    (embed,) = payload(severity=severity)["embeds"]
    assert (embed["color"], embed["title"]) == (style[0], f"{style[1]} {severity}: w")


def test_B108_the_exact_wait_is_in_the_answer_and_counts_for_more_than_the_header():
    with VendorServer(discord) as server:
        limited = {"message": "You are being rate limited.", "retry_after": 1.5, "global": False}
        server.faults.append(Answer(429, limited, {"Retry-After": "2"}))
        with pytest.raises(DeliveryError, match="Rate limited") as refused:
            DiscordChannel(webhook_url=server.url + DISCORD_PATH).send(
                Alert(Severity.INFO, "k", "w", "", ""), possible_duplicate=False
            )
    assert refused.value.retry_after_s == 1.5


def test_an_address_with_a_thread_keeps_it():
    with VendorServer(lambda asked: Answer(200, {"id": asked.query})) as server:
        channel = DiscordChannel(webhook_url=f"{server.url}{DISCORD_PATH}?thread_id=7")
        channel.send(Alert(Severity.INFO, "k", "w", "", ""), possible_duplicate=False)
        assert server.taken[0].query == "thread_id=7&wait=true"


def test_a_command_is_code_and_the_rest_is_text():
    (embed,) = payload(what_to_do="See `alerts list *` for *all*, ``not`` this.")["embeds"]
    assert embed["fields"][0]["value"] == "See `alerts list *` for \\*all\\*, \\`\\`not\\`\\` this."
