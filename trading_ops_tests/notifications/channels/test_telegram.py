"""What does Telegram get?"""

import pytest

from trading_ops.notifications.alert import Alert, Severity, Step
from trading_ops.notifications.channel import DeliveryError
from trading_ops.notifications.channels.telegram import NEUTRAL, STYLES, TelegramChannel, html_of
from trading_ops.notifications.text import MARKER, message_of
from trading_ops_tests.servers.vendors import CHAT, TELEGRAM_TOKEN, Answer, VendorServer, telegram, telegram_text, units


def text(**changes):
    fields = {"severity": Severity.ERROR, "dedup_key": "k", "what": "w", "why": "y", "what_to_do": "d", **changes}
    return html_of(message_of(Alert(**fields), possible_duplicate=False))


def test_B112_html_in_a_text_is_escaped_and_read_as_it_was():
    said = text(why="<class 'X'> & <b>")
    assert "&lt;class 'X'&gt; &amp; &lt;b&gt;" in said
    assert "<class 'X'> & <b>" in telegram_text(said)


@pytest.mark.parametrize("sign", ["x", "&", "<", "🚨", "\n- x"])
@pytest.mark.parametrize("length", [3_900, 4_096, 4_097, 63_000])
def test_B115_a_long_message_is_cut_with_a_marker_and_its_tags_are_balanced(sign, length):
    said = text(why=sign * length, what=sign * length, what_to_do=sign * length, numbers={"n": sign * length})
    seen = telegram_text(said)
    assert 3_800 <= units(seen) <= 4_096
    assert seen.count(MARKER) == 4
    assert "k" in seen.splitlines()[-1]


@pytest.mark.parametrize("sign", ["x", "&", "🚨"])
@pytest.mark.parametrize("since", ["2025-01-01T00:00:00+00:00", "z" * 300])
def test_B115_what_is_as_long_as_it_can_be_in_every_part_is_taken(sign, since):
    long, incident = sign * 9_000, "i" * 900
    address = "https://dagster.example.org/" + "a" * 460
    alert = Alert(Severity.CRITICAL, "k" * 400, long, long, long, "2025-03-01", {str(n): long for n in range(70)}, long,
                  address, incident, Step.REMINDED, since=since)  # fmt: skip
    seen = telegram_text(html_of(message_of(alert, possible_duplicate=True)))
    assert units(seen) <= 4_096
    assert all(part in seen for part in ("Since", "Done", "What to do", address, "possible duplicate"))


def test_B115_why_gets_the_room_that_the_rest_leaves():
    assert MARKER not in text(why="y" * 4_000)
    assert units(telegram_text(text(why="y" * 4_090))) == 4_096


@pytest.mark.parametrize(("severity", "mark"), [*STYLES.items(), ("NOTICE", NEUTRAL)], ids=str)
def test_B122_a_level_is_an_emoji(severity, mark):
    assert text(severity=severity).startswith(f"{mark} <b>{severity}</b>")


@pytest.mark.parametrize(
    ("status", "description", "permanent"),
    [(400, "Bad Request: chat not found", True), (401, "Unauthorized", True), (403, "bot was blocked", True)],
)
def test_B110_the_services_reason_is_told(status, description, permanent):
    with VendorServer(telegram) as server:
        server.faults.append(Answer(status, {"ok": False, "error_code": status, "description": description}))
        channel = TelegramChannel(bot_token=TELEGRAM_TOKEN, chat_id=CHAT, base_url=server.url)
        with pytest.raises(DeliveryError) as refused:
            channel.send(Alert(Severity.INFO, "k", "w", "", ""), possible_duplicate=False)
    told = f"HTTP {status}: {description}; see TELEGRAM_BOT_TOKEN and TELEGRAM_CHAT_ID"
    assert (str(refused.value), refused.value.permanent) == (told, permanent)


def test_a_command_is_code():
    assert "<b>What to do:</b> See <code>alerts list &amp; show</code>." in text(what_to_do="See `alerts list & show`.")


def test_B108_the_wait_is_in_the_answer():
    with VendorServer(telegram) as server:
        limited = {"ok": False, "error_code": 429, "description": "Too Many Requests: retry after 5",
                   "parameters": {"retry_after": 5}}  # fmt: skip
        server.faults.append(Answer(429, limited))
        channel = TelegramChannel(bot_token=TELEGRAM_TOKEN, chat_id=CHAT, base_url=server.url)
        with pytest.raises(DeliveryError, match="Rate limited") as refused:
            channel.send(Alert(Severity.INFO, "k", "w", "", ""), possible_duplicate=False)
    assert refused.value.retry_after_s == 5.0
    assert channel.target == "the chat …123"


def test_the_command_that_acknowledges_is_whole_for_a_long_name() -> None:
    incident = "strategy/" + "n" * 180
    alert = Alert(Severity.CRITICAL, f"{incident}/1/1", "it is bad", "x" * 9_000, "", incident=incident)
    shown = html_of(message_of(alert, possible_duplicate=False))
    assert f"alerts ack {incident}</code>" in shown
