"""Which network is meant by a model type?"""

from torch import nn

from trading_ops.training.card import MODEL_TYPES
from trading_ops.training.networks.gru import Gru
from trading_ops.training.networks.lstm import Lstm
from trading_ops.training.networks.transformer import Transformer

_NETWORKS: dict[str, type[nn.Module]] = {"lstm": Lstm, "gru": Gru, "transformer": Transformer}


def build(model_type: str, n_features: int) -> nn.Module:
    """A network with weights drawn from torch's generator: windows float32 [B, T, n_features] to log-odds [B].

    Raises ValueError for a type that is none of MODEL_TYPES.
    """
    if model_type not in _NETWORKS:
        raise ValueError(f"model_type is {model_type!r}; one of {', '.join(MODEL_TYPES)} would be right")
    return _NETWORKS[model_type](n_features)
