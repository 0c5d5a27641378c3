"""What may a secret look like in what somebody else says?"""

from __future__ import annotations

import base64
import json
from urllib.parse import quote, quote_plus

# as JSON writes them that may stand in a web page (Go does so), and PHP
_FOR_PAGES = str.maketrans({sign: f"\\u{ord(sign):04x}" for sign in "&<>'+"})


def forms(secret: str) -> list[str]:
    """The secret as it is, within JSON, in an address and in base64; the longest first.

    >>> forms("a&b/c")
    ['a\\\\u0026b\\\\/c', 'a\\\\u0026b/c', 'a%26b%2Fc', 'YSZiL2M=', 'a%26b/c', 'a&b\\\\/c', 'a&b/c']
    """
    within_json = {json.dumps(secret)[1:-1]}
    within_json |= {text.translate(_FOR_PAGES) for text in within_json}
    within_json |= {text.replace("/", "\\/") for text in within_json}
    in_addresses = {quote(secret), quote(secret, safe=""), quote_plus(secret)}
    found = {secret, repr(secret)[1:-1], base64.b64encode(secret.encode()).decode(), *within_json, *in_addresses}
    return sorted(found, key=lambda form: (-len(form), form))
