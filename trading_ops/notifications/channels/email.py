"""Tell people by e-mail."""

from __future__ import annotations

import hashlib
import smtplib
import socket
import ssl
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from email import policy
from email.message import EmailMessage
from email.utils import format_datetime, parseaddr
from typing import Literal

from trading_ops.notifications.alert import Alert
from trading_ops.notifications.channel import DeliveryError
from trading_ops.notifications.channels.page import html_of
from trading_ops.notifications.channels.redaction import Redaction
from trading_ops.notifications.picture import NAME, picture_of
from trading_ops.notifications.text import Message, fit, message_of

PORTS = {"starttls": 587, "ssl": 465, "none": 25}
TIMEOUT_S = 10.0
MOST_SUBJECT, MOST_TEXT = 200, 20_000
HOW = "see SMTP_SECURITY and SMTP_PORT"
# what a refused step may be about
ADVICE = {"connecting": "see SMTP_HOST and SMTP_PORT", "STARTTLS": HOW, "login": "see SMTP_USERNAME and SMTP_PASSWORD"}
_FULL = (552, 523, 534)  # the message is larger than the server takes


class EmailChannel:
    """A server, a sender and recipients. SMTP knows no key against repeats; the Message-ID is the same, so that a
    repeat is recognisable, and some mailboxes show it once.

    `security`: `starttls` and `ssl` check the server's certificate against `trusted` (default: the system's
    authorities); `none` sends in the open.
    """

    name = "email"
    deduplicates = False
    updates = False
    reports = True

    def __init__(
        self,
        *,
        host: str | None,
        sender: str | None,
        recipients: Sequence[str],
        port: int | None = None,
        security: Literal["starttls", "ssl", "none"] = "starttls",
        username: str | None = None,
        password: str | None = None,
        timeout_s: float = TIMEOUT_S,
        trusted: ssl.SSLContext | None = None,
    ) -> None:
        self._host, self._port, self._security = host, port or PORTS[security], security
        self._sender, self._recipients = sender, tuple(recipients)
        self._username, self._password = username, password
        self._timeout_s, self._trusted = timeout_s, trusted
        self._redacted = Redaction(password, f"\0{username}\0{password}" if password else None)

    @property
    def target(self) -> str:
        if not self._host or not self._sender or not self._recipients:
            return "not configured"
        return f"{', '.join(map(_veiled, self._recipients))} by {self._host}:{self._port} ({self._security})"

    def send(self, alert: Alert, *, possible_duplicate: bool, opening: str | None = None) -> str | None:
        if not self._host or not self._sender or not self._recipients:
            raise DeliveryError("email is not configured: set SMTP_HOST, EMAIL_FROM and EMAIL_TO", permanent=True)
        message = message_of(alert, possible_duplicate=possible_duplicate)
        mail = mail_of(alert, message, self._sender, self._recipients)
        step, sent = "connecting", False
        try:
            server = self._connected(self._host)
            try:
                if self._security == "starttls":
                    step = "STARTTLS"
                    server.starttls(context=self._trusted or ssl.create_default_context())
                if self._username and self._password:
                    step = "login"
                    server.login(self._username, self._password)
                step, sent = "sending", True
                people = [parseaddr(one)[1] for one in self._recipients]
                refused = server.send_message(mail, parseaddr(self._sender)[1], people)
                with suppress(smtplib.SMTPException, OSError):  # it is delivered, however the goodbye goes
                    server.quit()
            finally:
                server.close()
        except TimeoutError:
            raise self._timeout(step, sent) from None
        except smtplib.SMTPException as error:
            if isinstance(error.__context__, TimeoutError):
                raise self._timeout(step, sent) from None
            raise self._judged(error, step, sent) from None
        except ssl.SSLError as error:
            why = getattr(error, "verify_message", "") or error.reason or type(error).__name__
            see = f"; {HOW}" if "WRONG_VERSION_NUMBER" in str(error) else ""
            told = f"{self._host}:{self._port}: no trusted TLS connection ({self._redacted(str(why))}){see}"
            raise DeliveryError(told) from None
        except (OSError, ValueError) as error:  # a name that is no host, a header that is none
            said = self._redacted(str(error)) if isinstance(error, OSError) else type(error).__name__
            told = f"no connection to {self._host}:{self._port}: {said} ({step}){_advice(step)}"
            raise DeliveryError(told, in_doubt=sent, unanswered=isinstance(error, OSError)) from None
        if refused:
            codes = ", ".join(sorted({str(code) for code, _ in refused.values()}))
            told = f"SMTP {codes}: {len(refused)} of {len(self._recipients)} recipients refused, the others have it"
            raise DeliveryError(told, permanent=min(code for code, _ in refused.values()) >= 500, in_doubt=True)
        return None  # its Message-ID follows from the key

    def _connected(self, host: str) -> smtplib.SMTP:
        own = socket.gethostname()
        own = own if "." in own else "[127.0.0.1]"  # as smtplib does, but without asking the network for our name
        if self._security == "ssl":
            context = self._trusted or ssl.create_default_context()
            return smtplib.SMTP_SSL(host, self._port, own, timeout=self._timeout_s, context=context)
        return smtplib.SMTP(host, self._port, own, timeout=self._timeout_s)

    def _timeout(self, step: str, sent: bool) -> DeliveryError:
        # a server that waits for TLS says nothing to who does not begin with it
        see = f"; {HOW}" if step == "connecting" else ""
        told = f"timeout: {self._host}:{self._port} did not answer within {self._timeout_s:g} s ({step}){see}"
        return DeliveryError(told, in_doubt=sent, unanswered=True)

    def _judged(self, error: smtplib.SMTPException, step: str, sent: bool) -> DeliveryError:
        """5xx is for good, 4xx may pass; the server's words are shown without secrets."""
        if isinstance(error, smtplib.SMTPNotSupportedError):
            what = {"STARTTLS": "offers no STARTTLS", "login": "offers no login"}.get(step, "lacks an extension")
            return DeliveryError(f"{self._host}:{self._port} {what}{_advice(step)}", permanent=True)
        words: bytes | str
        if isinstance(error, smtplib.SMTPRecipientsRefused):
            code, words = min(error.recipients.values(), key=lambda answer: answer[0])  # one that may pass, if any
            about = "every recipient refused"
        elif isinstance(error, smtplib.SMTPResponseException):
            code, words = error.smtp_code, error.smtp_error
            about = f"{step} refused"
        else:
            return DeliveryError(f"{self._host}:{self._port} broke the connection ({step})", in_doubt=sent)
        said = self._redacted(words.decode("utf-8", "replace") if isinstance(words, bytes) else str(words))
        size = ", the message is too large" if code in _FULL and step == "sending" else ""
        return DeliveryError(f"SMTP {code}: {about}{size}: {said}{_advice(step)}", permanent=500 <= code < 600)


def mail_of(alert: Alert, message: Message, sender: str, recipients: Sequence[str]) -> EmailMessage:
    """The message in plain text and HTML; its Message-ID depends on the key and the sender's domain alone.

    What is said later about an incident answers the message that opened it, so that mailboxes show one conversation.
    """
    mail = EmailMessage(policy=policy.SMTP)
    mail["From"] = sender
    mail["To"] = ", ".join(recipients)
    label = "RESOLVED:" if message.resolved else f"[{message.label}]"
    mail["Subject"] = fit(f"{label} {message.what}", MOST_SUBJECT)
    mail["Date"] = format_datetime(datetime.now(UTC))
    mail["Message-ID"] = message_id(alert.dedup_key, sender)
    if (opening := alert.group or alert.opening) is not None:
        mail["In-Reply-To"] = mail["References"] = message_id(opening, sender)
    mail["Auto-Submitted"] = "auto-generated"  # so that no out-of-office answers
    picture = picture_of(alert.picture)
    picture_id = f"picture.{message_id(alert.dedup_key, sender)[1:-1]}" if picture else ""
    # quoted-printable: any server takes it, whatever the length of a line
    mail.set_content(text_of(message), cte="quoted-printable")
    mail.add_alternative(html_of(message, picture_id), subtype="html", cte="quoted-printable")
    if picture:
        html_part = mail.get_payload()[1]  # type: ignore[index]
        html_part.add_related(  # type: ignore[union-attr]
            picture, "image", "png", cid=f"<{picture_id}>", disposition="inline", filename=NAME
        )
    return mail


def message_id(dedup_key: str, sender: str) -> str:
    """The same for the same alert.

    >>> message_id("guard/rsi", "Ops <ops@example.org>")
    '<e5120bb4dcd49426f909acea@example.org>'
    """
    digest = hashlib.sha256(dedup_key.encode("utf-8", "surrogatepass")).hexdigest()[:24]
    domain = parseaddr(sender)[1].rpartition("@")[2]
    return f"<{digest}@{domain if domain.isascii() and domain else 'trading-ops.invalid'}>"


def text_of(message: Message) -> str:
    """The message in plain text."""
    parts = [f"{fit(message.label, MOST_SUBJECT)}: {fit(message.what, MOST_TEXT)}", message.notice]
    parts += [
        fit(said, MOST_TEXT) if heading == "Why" else f"{heading}: {fit(said, MOST_TEXT)}"
        for heading, said in message.sections
    ]
    parts += [fit(message.all_figures, MOST_TEXT), message.link, fit(message.footer, MOST_TEXT)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _advice(step: str) -> str:
    return f"; {ADVICE[step]}" if step in ADVICE else ""


def _veiled(address: str) -> str:
    """An address as a person recognises it, without giving it away.

    >>> _veiled("Anna <anna.b@example.org>")
    'a…@example.org'
    """
    name, _, domain = parseaddr(address)[1].rpartition("@")
    return f"{name[:1]}…@{domain}"
