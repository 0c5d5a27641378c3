"""How do a range of daily documents look in the Dagster UI?"""

from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg


def show(
    context: dg.AssetExecutionContext,
    documents: Mapping[str, Mapping[str, Any]],
    figures: Sequence[str],
    *,
    formula: str,
    **newest: dg.MetadataValue,
) -> None:
    """Each day's figures on its own materialisation; tables and plots once a run, on the newest day's."""
    for day, document in documents.items():
        numbers = {name: _cell(document[name]) for name in figures if document[name] is not None}
        context.add_asset_metadata({**numbers, "candles": document.get("candles", "-")}, partition_key=day)
    extra = {**newest, "formula": dg.MetadataValue.path(formula)}
    context.add_asset_metadata(extra, partition_key=max(documents))


def table_of(rows: Sequence[Mapping[str, Any]]) -> dg.MetadataValue:
    """Rows as a table in the Dagster UI; floats are rounded for reading, None is shown as a dash."""
    if not rows:
        return dg.MetadataValue.text("none")
    return dg.MetadataValue.table([dg.TableRecord({k: _cell(v) for k, v in row.items()}) for row in rows])


def _cell(value: Any) -> str | int | float | bool:
    if value is None:
        return "-"
    return float(f"{value:.2f}" if abs(value) >= 0.1 else f"{value:.2g}") if isinstance(value, float) else value
