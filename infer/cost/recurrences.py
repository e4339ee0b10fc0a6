"""Layers without attention: linear attention, state spaces and convolutions, read from a config.

Their FLOPs are those of the recurrence, token by token, with one multiplication and one addition for each number of the
state that is decayed and written, and one for each that is read. A prefill in chunks does more, on faster units.
"""

import math

from infer.cost.fields import Fields
from infer.cost.model import Recurrence, Weights, linear


def plain_heads(c: Fields) -> tuple[int, int, int, int]:
    heads = c.need("num_attention_heads")
    dim = c.size("head_dim") or c.hidden // max(heads, 1)
    return heads, c.size("num_key_value_heads") or heads, dim, dim


def convolution(channels: int, kernel: int, bias: bool = False) -> Weights:
    """Of each channel with its own kernel. A token is multiplied with all of it, as with a matrix."""
    return Weights(channels * kernel, channels * bias)


def _mamba_biases(c: Fields) -> tuple[bool, bool]:
    """Of projections and of the convolution."""
    return bool(c.get("use_bias", "mamba_proj_bias")), bool(c.get("use_conv_bias", "mamba_conv_bias"))


def mamba1(c: Fields, norms: bool = False) -> Recurrence:
    """Mamba (2312.00752): each channel has a state of its own."""
    inner, state = c.need("mamba_expand", "expand") * c.hidden, c.need("mamba_d_state", "state_size")
    kernel, rank = c.need("mamba_d_conv", "conv_kernel"), c.get("mamba_dt_rank", "time_step_rank")
    rank = math.ceil(c.hidden / 16) if rank == "auto" else c.need("mamba_dt_rank", "time_step_rank")
    bias, conv_bias = _mamba_biases(c)
    weights = linear(c.hidden, 2 * inner, bias) + convolution(inner, kernel, conv_bias)
    weights += linear(inner, rank + 2 * state) + linear(rank, inner, True) + linear(inner, c.hidden, bias)
    weights += Weights(0, inner * (state + 1) + norms * (rank + 2 * state))
    return Recurrence(weights, inner * (state + kernel - 1), 4 * inner * state)


def mamba2(c: Fields) -> Recurrence:
    """Mamba-2 (2405.21060): each head has a matrix as its state."""
    heads = c.need("mamba_n_heads", "mamba_num_heads", "num_heads")
    state, kernel = c.need("mamba_d_state", "ssm_state_size", "state_size"), c.need("mamba_d_conv", "conv_kernel")
    if c.get("mamba_num_heads"):
        inner = heads * c.need("mamba_head_dim")
    else:
        inner = c.size("mamba_d_ssm") or c.need("mamba_expand", "expand") * c.hidden
    channels = inner + 2 * c.need("mamba_n_groups", "n_groups") * state
    bias, conv_bias = _mamba_biases(c)
    out_bias = c.get("projectors_bias")  # of Falcon-H1
    weights = linear(c.hidden, inner + channels + heads, bias) + convolution(channels, kernel, conv_bias)
    weights += linear(inner, c.hidden, bias if out_bias is None else bool(out_bias))
    weights += Weights(0, 3 * heads + inner * (c.get("mamba_rms_norm") is not False))
    return Recurrence(weights, inner * state + channels * (kernel - 1), 4 * inner * state)


def gated_delta(c: Fields) -> Recurrence:
    """Gated DeltaNet (2412.06464). A token multiplies the state with its key, adds an outer product, and reads it."""
    heads = c.need("num_attention_heads")
    key_heads, value_heads = c.size("linear_num_key_heads") or heads, c.size("linear_num_value_heads") or heads
    key_dim = c.size("linear_key_head_dim") or int(0.75 * c.hidden / key_heads)
    value_dim = c.size("linear_value_head_dim") or 2 * key_dim
    values, kernel = value_heads * value_dim, c.need("linear_conv_kernel_dim")
    channels, state = 2 * key_heads * key_dim + values, value_heads * key_dim * value_dim
    weights = linear(c.hidden, channels + values + 2 * value_heads) + convolution(channels, kernel)
    weights += linear(values, c.hidden) + Weights(0, 2 * value_heads + value_dim)
    return Recurrence(weights, state + channels * (kernel - 1), 6 * state)


def kimi_delta(c: Fields) -> Recurrence:
    """Kimi Delta Attention (2510.26692): the delta rule with a gate for each channel."""
    own = c.get("linear_attn_config") or {}
    heads, dim = own.get("num_heads") or c.need("linear_num_heads"), own.get("head_dim") or c.need("linear_head_dim")
    kernel = own.get("short_conv_kernel_size") or c.need("linear_conv_kernel_dim")
    size, state = heads * dim, heads * dim * dim
    weights = linear(c.hidden, 3 * size) + convolution(3 * size, kernel) + linear(size, c.hidden)
    weights += (linear(c.hidden, dim) + linear(dim, size)) * 2 + linear(c.hidden, heads)
    return Recurrence(weights + Weights(0, size + heads + dim), state + 3 * size * (kernel - 1), 6 * state)


def lightning(c: Fields) -> Recurrence:
    """Lightning attention (MiniMax-01, 2501.08313): linear attention with a decay for each head."""
    heads, _, dim, _ = plain_heads(c)
    size, state = heads * dim, heads * dim * dim
    return Recurrence(linear(c.hidden, 4 * size) + linear(size, c.hidden) + Weights(0, size), state, 4 * state)


def short_convolution(c: Fields) -> Recurrence:
    """LFM2's gated convolution over a few tokens."""
    kernel, bias = c.need("conv_L_cache"), c.flag("conv_bias")
    weights = linear(c.hidden, 3 * c.hidden, bias) + linear(c.hidden, c.hidden, bias)
    return Recurrence(weights + convolution(c.hidden, kernel, bias), c.hidden * (kernel - 1))


def linear_recurrent_unit(c: Fields) -> Recurrence:
    """RG-LRU (Griffin, 2402.19427): a diagonal recurrence, its two gates from block-diagonal matrices."""
    width, kernel, heads = c.size("lru_width") or c.hidden, c.need("conv1d_width"), c.need("num_attention_heads")
    weights = linear(c.hidden, width, True) * 2 + convolution(width, kernel, True) + linear(width, c.hidden, True)
    weights += Weights(2 * heads * (width // heads) ** 2, 3 * width)
    return Recurrence(weights, width * kernel)
