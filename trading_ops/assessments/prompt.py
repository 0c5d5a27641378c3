"""What is GPT-4 asked? A versioned text, and the evidence as data: no balances, ids, keys."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from importlib.resources import files
from typing import Any

from trading_ops.assessments.evidence import Evidence

PROMPT_VERSION = "1"
DIGITS = 4  # significant ones of a figure
LONGEST_NAME = 80  # characters of what the bot calls something
# of the evidence, what may be told: all else (ids, the bot's account, digests, what was decided before) stays here
TOLD = (
    "day",
    "candles",
    "days",
    "trades",
    "breaches",
    "sharpe_ratio_90d",
    "sharpe_standard_error_90d",
    "market",
    "links",
)
TOLD_OF_MODELS = ("name", "age_days", "new_bars", "n_7d", "accuracy_7d", "drop_7d_pp", "drop_7d_interval_pp", "drift")


@dataclass(frozen=True, slots=True)
class Prompt:
    """Two messages; `sha256` is of both, `version` names the file of the first."""

    version: str
    sha256: str
    system: str
    user: str


def build_prompt(evidence: Evidence, version: str = PROMPT_VERSION) -> Prompt:
    """The instructions of a version and the evidence as JSON; the same evidence gives the same bytes.

    Names and reasons that come from the bot are JSON strings, cut to 80 characters. Raises KeyError for a version that
    this release does not have.
    """
    told = evidence.model_dump(mode="json")
    view = {name: told[name] for name in TOLD}
    view["models"] = [{name: model[name] for name in TOLD_OF_MODELS} for model in told["models"]]
    system = instructions(version)
    user = json.dumps({"evidence": _short(view)}, ensure_ascii=True, sort_keys=True, indent=1, allow_nan=False)
    return Prompt(version, sha256_of(system, user), system, user)


@cache
def instructions(version: str) -> str:
    """The text of a version."""
    file = files("trading_ops.assessments") / "prompts" / f"{version}.txt"
    if not version.isalnum() or not file.is_file():
        raise KeyError(f"prompt version {version!r}: this release has no such text")
    return file.read_text("utf-8")


def sha256_of(system: str, user: str) -> str:
    """SHA-256 (hex) of both messages, each preceded by its length in bytes."""
    digest = sha256()
    for text in (system, user):
        content = text.encode("utf-8", "surrogatepass")
        digest.update(len(content).to_bytes(8, "big") + content)
    return digest.hexdigest()


def _short(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(name)[:LONGEST_NAME]: _short(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_short(part) for part in value]
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    return value[:LONGEST_NAME] if isinstance(value, str) else value
