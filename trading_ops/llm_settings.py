"""Which LLM is asked, how often, and at which prices where nobody else knows them?"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, Field, HttpUrl, SecretStr, field_validator
from pydantic_settings import NoDecode

PRICE_FORM = "give model=input/cached/output in USD per million tokens, such as my-model=0.15/0.075/0.60"
_PRICE = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")
OwnPrice = tuple[str, str, str]


class LlmSettings(BaseModel):
    """What can be configured about LLM calls; OPENAI_* have no prefix of ours, as the SDK's own.

    The default model does not reason, so that what is reserved for a call is near to what it costs; it takes a
    temperature and structured outputs, and its price is in every price list.
    """

    openai_api_key: SecretStr | None = Field(
        None, validation_alias="OPENAI_API_KEY", description="Key of the LLM's interface; empty: the rules decide alone"
    )
    openai_base_url: HttpUrl | None = Field(
        None, validation_alias="OPENAI_BASE_URL", description="Address of a compatible server; empty: OpenAI's"
    )
    openai_model: str = Field(
        "gpt-4.1-mini", validation_alias="OPENAI_MODEL", pattern=r"^\S+$", description="Model that is asked"
    )
    openai_api: Literal["chat", "responses"] = Field(
        "chat",
        validation_alias="OPENAI_API",
        description="Its interface: `chat` (Chat Completions, which every compatible server speaks) or `responses`",
    )
    openai_timeout_s: float = Field(
        60.0, validation_alias="OPENAI_TIMEOUT_S", gt=0, le=600, description="Seconds that an answer may take"
    )
    llm_calls_an_hour: int = Field(5, ge=0, description="LLM calls in any 60 minutes, failed ones too")
    llm_prices: Annotated[Mapping[str, OwnPrice], NoDecode] = Field(
        {}, description="Prices of models, such as my-model=0.15/0.075/0.60 (USD per million input/cached/output)"
    )

    @field_validator("llm_prices", mode="before")
    @classmethod
    def _read_prices(cls, value: object) -> object:
        return own_prices(value) if isinstance(value, str) else value

    @field_validator("openai_api_key")
    @classmethod
    def _fits_a_header(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not re.fullmatch(r"[!-~]+", value.get_secret_value()):
            raise ValueError("give the key alone: printable ASCII without spaces")
        return value

    @field_validator("openai_base_url")
    @classmethod
    def _base_url_holds_no_password(cls, value: HttpUrl | None) -> HttpUrl | None:
        if value is not None and (value.username or value.password or value.query or value.fragment):
            raise ValueError("an address is shown and must hold no name, password or query; the key is OPENAI_API_KEY")
        return value


def own_prices(text: str) -> dict[str, OwnPrice]:
    """`my-model=0.15/0.075/0.60; other=1/0.1/4` by model. Raises ValueError that says what would be right.

    >>> own_prices("my-model=0.15/0.075/0.60")
    {'my-model': ('0.15', '0.075', '0.60')}
    """
    found: dict[str, OwnPrice] = {}
    for part in filter(None, map(str.strip, text.split(";"))):
        model, _, listed = (piece.strip() for piece in part.rpartition("="))
        figures = [figure.strip() for figure in listed.split("/")]
        if not model or model in found or len(figures) != 3 or not all(map(_PRICE.fullmatch, figures)):
            raise ValueError(f"{part!r}: {PRICE_FORM}, each model once, separated by semicolons")
        found[model] = (figures[0], figures[1], figures[2])
    return found
