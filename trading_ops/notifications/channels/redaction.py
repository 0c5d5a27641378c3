"""What of an error may be stored and shown?"""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import unquote, urlsplit

from trading_ops.notifications.text import fit, one_line
from trading_ops.secrecy import forms

SHORTEST = 4  # what is shorter is found by chance in any text
LONGEST = 300  # characters of what somebody else says
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://[^\s\"'<>]+", re.IGNORECASE)


class Redaction:
    """Takes secrets out of texts that others wrote, also in the forms in which they travel."""

    def __init__(self, *secrets: str | None) -> None:
        known = {form for secret in secrets if secret for form in _forms(secret)}
        self._forms = sorted((form for form in known if len(form) >= SHORTEST), key=len, reverse=True)

    def __call__(self, text: str) -> str:
        """One line of the text without secrets; of an address only the host is left."""
        text = _ADDRESS.sub(lambda found: f"[{host_of(found.group())}]", text)
        for form in self._forms:
            text = text.replace(form, "[secret]")
        return fit(one_line(text), LONGEST)


def host_of(url: str) -> str:
    """The host of an address, which is no secret; the rest may be one."""
    try:
        return urlsplit(url).hostname or "an address"
    except ValueError:
        return "an address"


def _forms(secret: str) -> Iterable[str]:
    yield from forms(secret)
    try:
        url = urlsplit(secret)
    except ValueError:
        return
    if url.scheme in ("http", "https"):  # the path and the query are what nobody may know
        whole = f"{url.path}?{url.query}"
        parts = {
            part for part in (url.path, url.path.strip("/"), url.query, *re.split("[/?&=]", whole)) if len(part) >= 8
        }
        for part in {*parts, *map(unquote, parts), *filter(None, (url.username, url.password))}:
            yield from forms(part)
