"""How does a value that JSON cannot hold get into a record all the same?"""

import math
from collections.abc import Mapping
from typing import Any

MAX_DEPTH = 20


def plain(value: Any, depth: int = 0) -> Any:
    """The value with everything JSON cannot hold as text: NaN, times, objects, lone surrogates, too deep nesting.

    For what is quoted as evidence, such as a quarantined row; computed figures are never passed through this.
    """
    if depth < MAX_DEPTH and isinstance(value, Mapping):
        return {_text(key): plain(item, depth + 1) for key, item in value.items()}
    if depth < MAX_DEPTH and isinstance(value, (list, tuple)):
        return [plain(item, depth + 1) for item in value]
    if value is None or isinstance(value, (bool, int)) or (isinstance(value, float) and math.isfinite(value)):
        return value
    return _text(value)


def _text(value: Any) -> str:
    return str(value).encode("utf-8", "backslashreplace").decode()
