"""What does an e-mail look like?"""

from __future__ import annotations

import html

from trading_ops.notifications.alert import Severity
from trading_ops.notifications.text import Message, fit

STYLES: dict[str, str] = {
    Severity.INFO: "#1f6feb",
    Severity.WARNING: "#9a6700",
    Severity.ERROR: "#d1372f",
    Severity.CRITICAL: "#b00020",
}
NEUTRAL = "#6b7280"
RESOLVED = "#1a7f37"
MOST_LABEL, MOST_TITLE, MOST_TEXT, MOST_PREVIEW = 200, 1_000, 20_000, 120
# styles stand at each element, for many mail programs read no others; DARK is for those that do
FONT = "font-family:-apple-system,'Segoe UI',Roboto,Helvetica,Arial,sans-serif;font-size:15px;line-height:1.5"
PAGE = f"margin:0;padding:12px;background:#f2f3f5;color:#1f2328;{FONT}"
CARD = "max-width:600px;margin:0 auto;box-sizing:border-box;padding:20px;background:#ffffff;border-radius:8px"
BADGE = "display:inline-block;padding:2px 10px;border-radius:4px;color:#ffffff;font-size:13px;font-weight:bold"
TABLE = "width:100%;border-collapse:collapse;margin:16px 0;font-size:14px"
CELL = "padding:6px 0;border-bottom:1px solid #e4e6ea;vertical-align:top"
VALUE = "padding-left:12px;text-align:right;word-break:break-word;font-variant-numeric:tabular-nums"
IMAGE = "display:block;width:100%;max-width:560px;height:auto;margin:16px 0;border-radius:4px"
BUTTON = (
    "display:inline-block;padding:10px 18px;border-radius:6px;background:#1f6feb;color:#ffffff;text-decoration:none"
)
FAINT = "margin:20px 0 0;color:#6b7280;font-size:12px;word-break:break-word"
DARK = (
    "@media (prefers-color-scheme: dark) {.page {background:#0d1117 !important;color:#e6edf3 !important}"
    " .card {background:#161b22 !important} .line {border-color:#30363d !important} .faint {color:#8b949e !important}}"
)


def html_of(message: Message, picture_id: str = "") -> str:
    """The message as a page that mail programs show without loading anything, on a phone and in the dark too.

    `picture_id`: the Content-ID of its picture, where the mail has one.
    """
    colour = RESOLVED if message.resolved else STYLES.get(message.severity, NEUTRAL)
    what, label = _html(message.what, MOST_TITLE), _html(message.label, MOST_LABEL)
    picture = (
        f'<img src="cid:{html.escape(picture_id)}" alt="{what}" width="536" style="{IMAGE}">' if picture_id else ""
    )
    link = f'<p><a href="{html.escape(message.link)}" style="{BUTTON}">Open the run</a></p>' if message.link else ""
    parts = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="color-scheme" content="light dark">',
        f"<title>{label}: {what}</title>\n<style>{DARK}</style>\n</head>",
        f'<body class="page" style="{PAGE}">',
        # what a list of mails shows behind the subject
        f'<div style="display:none;max-height:0;overflow:hidden">{_html(message.why, MOST_PREVIEW)}</div>',
        f'<div class="card" style="{CARD};border-top:6px solid {colour}">',
        f'<p style="margin:0"><span style="{BADGE};background:{colour}">{label}</span></p>',
        f'<h1 style="margin:12px 0;font-size:20px;line-height:1.3">{what}</h1>',
        f"<p><em>{_html(message.notice)}</em></p>" if message.notice else "",
        f"<p>{_html(message.why)}</p>" if message.why else "",
        picture,
        _facts(message),
        _numbers(message),
        link,
        f'<p class="faint" style="{FAINT}">{_html(message.footer)}</p>' if message.footer else "",
        "</div>\n</body>\n</html>",
    )
    return "\n".join(part for part in parts if part) + "\n"


def _facts(message: Message) -> str:
    """Since when, what was done and what to do, each below its heading."""
    return "\n".join(
        f'<p style="margin:12px 0"><strong>{heading}</strong><br>\n{_html(said)}</p>'
        for heading, said in message.sections
        if heading != "Why"
    )


def _numbers(message: Message) -> str:
    """A row a number; what is nested is indented."""
    if not message.numbers:
        return ""
    room = MOST_TEXT // (2 * len(message.numbers))
    rows = "\n".join(
        f'<tr><td class="line" style="{CELL};padding-left:{16 * min(figure.depth, 8)}px">'
        f'{_html(figure.name, room)}</td><td class="line" style="{CELL};{VALUE}">{_html(figure.value, room)}</td></tr>'
        for figure in message.numbers
    )
    return f'<table style="{TABLE}">\n{rows}\n</table>'


def _html(text: str, most: int = MOST_TEXT) -> str:
    return html.escape(fit(text, most)).replace("\n", "<br>\n")
