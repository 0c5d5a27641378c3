"""Which settings are secret, and is one of them found in what was written, whatever it was dressed as?"""

from __future__ import annotations

import base64
import json
import secrets
import sqlite3
import zlib
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import get_args
from urllib.parse import quote, quote_plus

from pydantic import SecretStr

from trading_ops.settings import Settings

# every setting that holds a secret: a new one is planted without anybody thinking of it
FIELDS = tuple(
    name
    for name, field in Settings.model_fields.items()
    if field.annotation is SecretStr or SecretStr in get_args(field.annotation)
)
VARIABLES = {
    name: str(Settings.model_fields[name].validation_alias or f"{Settings.model_config['env_prefix']}{name}").upper()
    for name in FIELDS
}
BEGINNING = 14  # letters of a secret that are found by nobody's chance
SIGNS = '+/=%!"&'  # as a generated password may hold: what each encoding turns into something else


def plant() -> dict[str, str]:
    """A secret for every setting, each like no other."""
    return {name: f"s3cret{secrets.token_hex(8)}{SIGNS}{secrets.token_hex(8)}" for name in FIELDS}


def forms(secret: str) -> set[str]:
    """How a secret may look in a text: as it is, in an address, in JSON, in hex, and within base64 at any place."""
    raw = secret.encode()
    found = {secret, json.dumps(secret)[1:-1], repr(secret)[1:-1], raw.hex(), raw.hex().upper()}
    found |= {quote(secret), quote(secret, safe=""), quote_plus(secret)}
    for before in range(3):  # what stands before it (user:, \0user\0) shifts it against groups of three bytes
        usable = (before + len(raw)) // 3 * 3
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            encoded = encode(b"\0" * before + raw)[: usable // 3 * 4].decode()
            found.add(encoded[4 if before else 0 :])
    return found


def found_in(text: str, planted: Mapping[str, str]) -> list[str]:
    """The settings whose secret, or the beginning or end of it, the text holds in some form."""
    return [
        name
        for name, secret in planted.items()
        if any(form in text for part in (secret, secret[:BEGINNING], secret[-BEGINNING:]) for form in forms(part))
    ]


def everything_below(folder: Path) -> Iterator[tuple[str, str]]:
    """Each file as it lies there (write-ahead logs too), and each value of a database, unpacked where it is packed."""
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not path.is_file() or any(parent.is_symlink() for parent in path.parents):
            continue
        content = path.read_bytes()
        yield str(path), content.decode("latin-1")
        if content.startswith(b"SQLite format 3\0"):
            yield f"rows of {path}", "\n".join(_values(path))


def _values(path: Path) -> Iterator[str]:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        db.text_factory = bytes
        tables = [name.decode() for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in tables:
            for row in db.execute(f'SELECT * FROM "{table}"'):
                for value in row:
                    yield _text(value)


def _text(value: object) -> str:
    if not isinstance(value, bytes):
        return str(value)
    with suppress(zlib.error):  # it is not packed
        value = zlib.decompress(value)
    return value.decode("latin-1")
