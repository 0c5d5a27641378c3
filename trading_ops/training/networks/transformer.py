"""How does attention read a window?"""

import math

import torch
from torch import nn
from torch.nn.functional import gelu, scaled_dot_product_attention

SLOWEST = 1_000.0  # bars of the longest wave in a position's code, times 2 pi


class Transformer(nn.Module):
    """Two encoder layers of 4 heads; the last bar's state says how likely a rise is. 17.7 thousand weights.

    Vaswani et al., arXiv 1706.03762, normalised before each part (Xiong et al., arXiv 2002.04745). No causal mask: the
    whole window is past when it is read. Only the last bar is read out, so the last layer calculates it alone.
    """

    def __init__(self, n_features: int, width: int = 32, heads: int = 4, layers: int = 2) -> None:
        super().__init__()
        self.embed = nn.Linear(n_features, width)
        self.layers = nn.ModuleList(Layer(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Windows [B, T, k], oldest bar first, to log-odds of a rise [B]."""
        bars = self.embed(x)  # [B, T, width]
        bars = bars + positions(x.shape[1], bars.shape[2]).to(bars)
        for layer in self.layers[:-1]:
            bars = layer(bars, bars)
        last = self.layers[-1](bars[:, -1:], bars)  # [B, 1, width]
        return self.head(self.norm(last[:, 0])).squeeze(-1)


class Layer(nn.Module):
    """Attention of some bars to all, then a feed-forward part, each added to what it read."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_attention, self.norm_forward = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key_value = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)
        self.widen, self.narrow = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, asking: torch.Tensor, bars: torch.Tensor) -> torch.Tensor:
        """`asking` [B, Q, width] are the last Q of `bars` [B, T, width]; their new states [B, Q, width]."""
        read = self.norm_attention(bars)
        query = self._apart(self.query(read[:, -asking.shape[1] :]))  # [B, heads, Q, width / heads]
        key, value = map(self._apart, self.key_value(read).chunk(2, dim=-1))  # [B, heads, T, width / heads]
        found = scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)  # [B, Q, width]
        state = asking + self.out(found)
        return state + self.narrow(gelu(self.widen(self.norm_forward(state))))

    def _apart(self, states: torch.Tensor) -> torch.Tensor:
        """[B, L, width] to [B, heads, L, width / heads]."""
        return states.unflatten(-1, (self.heads, -1)).transpose(1, 2)


def positions(bars: int, width: int) -> torch.Tensor:
    """Sines and cosines of each bar's distance from the last one, [bars, width]; the last bar's are 0 and 1."""
    back = torch.arange(bars - 1, -1, -1.0)[:, None]
    rates = torch.exp(torch.arange(0, width, 2) * (-math.log(SLOWEST) / width))
    return torch.cat([torch.sin(back * rates), torch.cos(back * rates)], dim=1)
