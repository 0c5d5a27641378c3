"""How is a command shown that a person may copy, whatever the names in it are?"""

from __future__ import annotations

import shlex


def command(words: str, *arguments: object, **options: object) -> str:
    """`trading-ops`, our own words, then what comes from outside: names, and options such as reason="...".

    >>> command("strategies disable", "rsi; rm -rf ~", reason="...")
    "trading-ops strategies disable 'rsi; rm -rf ~' --reason ..."
    """
    named = [word for name, value in options.items() for word in (f"--{name}", value)]
    looks_like_an_option = any(str(argument).startswith("-") for argument in arguments)
    order = [*named, "--", *arguments] if looks_like_an_option else [*arguments, *named]
    return shell("trading-ops", *words.split(), *order)


def shell(*words: object) -> str:
    """The words as one line that a shell reads as these words and nothing else.

    >>> shell("chmod", "600", "my var/audit.db")
    "chmod 600 'my var/audit.db'"
    """
    return shlex.join(visible(str(word)) for word in words)


def visible(text: str) -> str:
    """The text with a replacement character for each that a terminal obeys or nobody sees.

    >>> visible("rsi\\x1b[2J\\n")
    'rsi�[2J�'
    """
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


def beside_commands(text: str) -> str:
    """What others say, on one line within our own words: where backticks stand there, people copy a command.

    >>> beside_commands("`reboot`\\nnow")
    'ˋrebootˋ now'
    """
    return visible(" ".join(text.split())).replace("`", "\N{MODIFIER LETTER GRAVE ACCENT}")
