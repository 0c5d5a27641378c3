"""Does an alert arrive by e-mail, whole and recognisable, and is it said why it did not?"""

from __future__ import annotations

import logging
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from trading_ops.notifications.alert import Alert, Severity
from trading_ops.notifications.channel import DeliveryError
from trading_ops.notifications.channels.email import EmailChannel, text_of
from trading_ops.notifications.channels.page import html_of
from trading_ops.notifications.text import MARKER, message_of
from trading_ops_tests.notifications.channels.test_every_http_channel import ALERT, ALERTS, NASTY
from trading_ops_tests.servers.bot import make_authority
from trading_ops_tests.servers.smtp import PASSWORD, USER, MailServer


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    return make_authority(tmp_path_factory.mktemp("smtp"))  # type: ignore[return-value]


def channel(server: Any, files: Any, security: Any = "starttls", **changes: Any) -> EmailChannel:
    options: dict[str, Any] = {
        "host": "127.0.0.1",
        "port": server.port,
        "security": security,
        "username": USER,
        "password": PASSWORD,
        "sender": "trading_ops <ops@example.org>",
        "recipients": ["anna@example.org", "Ben <ben@example.org>"],
        "timeout_s": 5.0,
        "trusted": ssl.create_default_context(cafile=files[0]),
    }
    return EmailChannel(**{**options, **changes})


def refusal(mail: EmailChannel, alert: Alert = ALERT) -> DeliveryError:
    with pytest.raises(DeliveryError) as refused:
        mail.send(alert, possible_duplicate=False)
    assert "GEHEIM" not in str(refused.value)
    assert refused.value.__cause__ is None
    return refused.value


@pytest.mark.parametrize("security", ["starttls", "ssl", "none"])
def test_an_alert_arrives_in_text_and_html_on_every_kind_of_connection(files, security):
    with MailServer(files, security) as server:
        channel(server, files, security).send(ALERT, possible_duplicate=False)
        (mail,), (envelope,) = server.mails(), server.taken_by.taken
    assert envelope.rcpt_tos == ["anna@example.org", "ben@example.org"]
    assert mail["Subject"] == "[CRITICAL] rsi lost 12 %"
    assert (mail["From"], mail["To"]) == ("trading_ops <ops@example.org>", "anna@example.org, Ben <ben@example.org>")
    for kind in ("plain", "html"):
        body = mail.get_body((kind,)).get_content()
        for part in ("rsi lost 12 %", "above 10 %", "Look, then resume.", "daily loss", "guard/rsi/2025-03-01"):
            assert part in body, (kind, part)
        assert "possible duplicate" not in body


def test_a_repeat_is_recognisable_by_its_message_id_and_says_that_it_may_be_one(files):
    with MailServer(files, "none", login=False) as server:
        mail = channel(server, files, "none", username=None, password=None)
        for duplicate in (False, True):
            mail.send(ALERT, possible_duplicate=duplicate)
        mail.send(Alert(Severity.INFO, "another", "w", "", ""), possible_duplicate=False)
        first, again, other = server.mails()
    assert first["Message-ID"] == again["Message-ID"] != other["Message-ID"]
    assert "possible duplicate" in again.get_body(("plain",)).get_content()


@pytest.mark.parametrize("severity", [*Severity, "NOTICE", ""])
def test_B122_every_level_is_told(files, severity):
    with MailServer(files, "none", login=False) as server:
        mail = channel(server, files, "none", username=None, password=None)
        mail.send(Alert(severity, "k", "w", "y", "d"), possible_duplicate=False)
        assert server.mails()[0]["Subject"] == f"[{severity or 'UNKNOWN'}] w"


def test_html_in_a_text_is_text_and_a_line_end_makes_no_header(files):
    with MailServer(files, "none", login=False) as server:
        mail = channel(server, files, "none", username=None, password=None)
        mail.send(
            Alert(Severity.ERROR, "k", "a\r\nBcc: eve@x.y\n<b>", "<script>1</script>", ""), possible_duplicate=False
        )
        (sent,) = server.mails()
    assert sent["Subject"] == "[ERROR] a Bcc: eve@x.y <b>"
    assert sent["Bcc"] is None
    assert "<script>" not in sent.get_body(("html",)).get_content()
    assert "<script>1</script>" in sent.get_body(("plain",)).get_content()


def test_what_is_too_long_ends_with_a_marker(files):
    with MailServer(files, "none", login=False) as server:
        mail = channel(server, files, "none", username=None, password=None)
        mail.send(Alert(Severity.ERROR, "k", "w" * 5_000, "y" * 100_000, ""), possible_duplicate=False)
        (sent,) = server.mails()
    assert len(sent["Subject"]) <= 200
    assert sent["Subject"].endswith(MARKER)
    assert MARKER in sent.get_body(("plain",)).get_content()


@pytest.mark.parametrize(
    ("answer", "permanent"),
    [("550 5.7.1 blocked", True), ("552 5.3.4 too large", True), ("554 no", True), ("421 4.3.0 later", False),
     ("451 4.7.1 greylisted, come again", False), ("452 4.2.2 mailbox full", False)],
)  # fmt: skip
def test_a_refusal_is_named_by_its_code(files, answer, permanent):
    with MailServer(files, "none", login=False) as server:
        server.taken_by.answers.append(answer)
        error = refusal(channel(server, files, "none", username=None, password=None))
    assert f"SMTP {answer[:3]}" in str(error)
    assert (error.permanent, error.in_doubt) == (permanent, False)


def test_a_wrong_password_is_permanent_and_not_told(files):
    with MailServer(files, "starttls") as server:
        error = refusal(channel(server, files, password="GEHEIM-anders"))
    assert str(error).startswith("SMTP 535: login refused")
    assert str(error).endswith("; see SMTP_USERNAME and SMTP_PASSWORD")
    assert error.permanent


def test_a_certificate_that_is_not_trusted_ends_before_the_login(files, tmp_path):
    other = make_authority(tmp_path)
    with MailServer(files, "starttls") as server:
        error = refusal(channel(server, files, trusted=ssl.create_default_context(cafile=other[0])))
        assert "no trusted TLS connection" in str(error)
        assert server.taken_by.taken == []


def test_a_server_without_starttls_gets_nothing_in_the_open(files):
    with MailServer(files, "none", login=False) as server:
        error = refusal(channel(server, files, "starttls"))
        place, _, said = str(error).partition(" ")
        assert place.startswith("127.0.0.1:")
        assert (said, error.permanent) == ("offers no STARTTLS; see SMTP_SECURITY and SMTP_PORT", True)
        assert server.taken_by.taken == []


def test_a_server_that_speaks_no_tls_says_which_settings_to_look_at(files):
    with MailServer(files, "none", login=False) as server:
        error = refusal(channel(server, files, "ssl"))
    assert str(error).endswith("; see SMTP_SECURITY and SMTP_PORT")


def test_a_recipient_who_is_refused_is_told_and_the_others_have_it(files):
    with MailServer(files, "none", login=False) as server:
        server.taken_by.refused["ben@example.org"] = "550 5.1.1 unknown"
        mail = channel(server, files, "none", username=None, password=None)
        error = refusal(mail)
        assert str(error) == "SMTP 550: 1 of 2 recipients refused, the others have it"
        assert (error.permanent, error.in_doubt, len(server.taken_by.taken)) == (True, True, 1)
        server.taken_by.refused["anna@example.org"] = "450 4.2.1 later"
        assert "every recipient refused" in str(refusal(mail))


def test_a_recipient_who_may_be_reached_later_is_tried_again(files):
    with MailServer(files, "none", login=False) as server:
        server.taken_by.refused["ben@example.org"] = "450 4.7.1 greylisted"
        mail = channel(server, files, "none", username=None, password=None)
        error = refusal(mail)
        assert (error.permanent, error.in_doubt, len(server.taken_by.taken)) == (False, True, 1)
        server.taken_by.refused["anna@example.org"] = "550 5.1.1 unknown"
        error = refusal(mail)
        assert (str(error)[:8], error.permanent, error.in_doubt) == ("SMTP 450", False, False)


def test_the_plain_text_is_bounded_as_the_html_is():
    alert = Alert("S" * 90_000, "k" * 90_000, *["w" * 90_000] * 3, numbers={str(i): "n" * 90_000 for i in range(60)})  # type: ignore[arg-type]
    message = message_of(alert, possible_duplicate=True)
    assert len(text_of(message)) < 6 * 20_000
    assert len(html_of(message)) < 6 * 20_000


@contextmanager
def deaf(says: bytes) -> Iterator[int]:
    """A server that says something and then nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        connections = []

        def accept() -> None:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            connections.append(connection)
            connection.sendall(says)
            if not says:
                return

        threading.Thread(target=accept, daemon=True).start()
        yield listening.getsockname()[1]
        for connection in connections:
            connection.close()


@pytest.mark.parametrize("says", [b"", b"220 hello\r\n"])
def test_B110_a_server_that_falls_silent_is_a_timeout(files, says):
    with deaf(says) as port:
        error = refusal(EmailChannel(host="127.0.0.1", port=port, sender="a@b.c", recipients=["d@e.f"], timeout_s=0.3))
    assert "timeout" in str(error)
    assert (error.permanent, error.in_doubt) == (False, False)


def test_where_nobody_listens_nothing_is_in_doubt():
    error = refusal(EmailChannel(host="127.0.0.1", port=9, sender="a@b.c", recipients=["d@e.f"], timeout_s=2.0))
    assert "no connection to 127.0.0.1:9: " in str(error)
    assert str(error).endswith("(connecting); see SMTP_HOST and SMTP_PORT")
    assert (error.permanent, error.in_doubt) == (False, False)


@pytest.mark.parametrize("missing", ["host", "sender", "recipients"])
def test_B111_what_is_not_configured_says_which_variables(missing):
    options: dict[str, Any] = {"host": "h", "sender": "a@b.c", "recipients": ["d@e.f"], missing: ""}
    assert "not configured: set SMTP_HOST, EMAIL_FROM and EMAIL_TO" in str(refusal(EmailChannel(**options)))
    assert EmailChannel(**options).target == "not configured"


def test_B121_no_password_in_any_log_or_target(files, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    with MailServer(files, "starttls") as server:
        mail = channel(server, files)
        mail.send(ALERT, possible_duplicate=False)
        server.taken_by.answers.append(f"554 {PASSWORD}")
        said = str(refusal(mail))
    assert mail.target == f"a…@example.org, b…@example.org by 127.0.0.1:{server.port} (starttls)"
    assert "[secret]" in said
    ours = "".join(record.getMessage() for record in caplog.records if not record.name.startswith("mail."))
    assert "GEHEIM" not in ours + "".join(capfd.readouterr())


@pytest.fixture(scope="module")
def quiet(files) -> Iterator[MailServer]:
    logging.getLogger("mail.log").setLevel(logging.CRITICAL)
    with MailServer(files, "none", login=False, size=2**23) as server:
        yield server


@pytest.mark.parametrize("text", NASTY, ids=range(len(NASTY)))
def test_whatever_a_text_holds_it_arrives(quiet, files, text):
    mail = channel(quiet, files, "none", username=None, password=None)
    mail.send(Alert(Severity.ERROR, text[:300], text, text, text, text[:20], {text[:9]: text}), possible_duplicate=True)
    sent = quiet.mails()[-1]
    quiet.taken_by.taken.clear()
    for kind in ("plain", "html"):
        assert not set("\0\x1b\x7f\u202e\u200f\ud800") & set(sent.get_body((kind,)).get_content())


def fuzzed(server: MailServer, files: Any, examples: int) -> None:
    mail = channel(server, files, "none", username=None, password=None)

    @settings(
        max_examples=examples,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.explicit, Phase.generate],
        database=None,
    )
    @given(alert=ALERTS, possible_duplicate=st.booleans())
    def every_alert_is_taken(alert: Alert, possible_duplicate: bool) -> None:
        mail.send(alert, possible_duplicate=possible_duplicate)
        assert len(server.taken_by.taken) == 1
        server.taken_by.taken.clear()

    every_alert_is_taken()


def test_fuzzed_alerts_are_taken(quiet, files):
    fuzzed(quiet, files, 60)


@pytest.mark.chaos
def test_five_thousand_fuzzed_alerts_are_taken(quiet, files):
    fuzzed(quiet, files, 5_000)
