"""The operations of Core ML's ML programs in numpy, by their names and with their parameters' names.

Semantics are those of coremltools' reference of MIL operations (apple.github.io/coremltools, "MIL ops").
Floats are computed in the type they come in; the interpreter decides which that is. Numbers and lists of a program
are numpy arrays too, of no or one dimension.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy import ndarray as Array

from lite_runtime.bundle import BundleError

Ints = Array | Sequence[int]
Bools = Array | Sequence[bool]
Int = Array | int
Bool = Array | bool
Number = Array | float

TYPES = {
    "fp16": np.float16,
    "fp32": np.float32,
    "int8": np.int8,
    "uint8": np.uint8,
    "int16": np.int16,
    "uint16": np.uint16,
    "int32": np.int32,
    "bool": np.bool_,
}
_LACKS = "the interpreter of Core ML packages lacks {}"
OPS: dict[str, Callable[..., Any]] = {}


def op(function: Callable[..., Any]) -> Callable[..., Any]:
    """Enter an operation under its own name."""
    OPS[function.__name__] = function
    return function


@op
def cast(x: Array, dtype: str) -> Array:
    """``x`` in another type; floats lose their fraction on the way to integers."""
    return x.astype(TYPES[dtype])


@op
def select(cond: Array, a: Array, b: Array) -> Array:
    """``a`` where ``cond`` holds, else ``b``."""
    return np.where(cond, a, b)


@op
def clip(x: Array, alpha: Number, beta: Number) -> Array:
    """``x`` within ``alpha`` and ``beta``."""
    return np.clip(x, alpha, beta)


@op
def relu(x: Array) -> Array:
    """``max(x, 0)``."""
    return np.maximum(x, x.dtype.type(0))


@op
def sigmoid(x: Array) -> Array:
    """``1 / (1 + exp(-x))``, by the tangent, which does not overflow."""
    half = x.dtype.type(0.5)
    return half + half * np.tanh(half * x)


@op
def softmax(x: Array, axis: Int = -1) -> Array:
    """Exponentials that sum to one along ``axis``."""
    powers = np.exp(x - x.max(axis, keepdims=True))
    return powers / powers.sum(axis, keepdims=True)


@op
def layer_norm(
    x: Array, axes: Ints, gamma: Array | None = None, beta: Array | None = None, epsilon: Number = 1e-5
) -> Array:
    """``x`` with mean 0 and variance 1 over ``axes``, then scaled and shifted."""
    over = tuple(np.atleast_1d(axes))
    centred = x - x.mean(over, keepdims=True)
    normal = centred / np.sqrt(np.square(centred).mean(over, keepdims=True) + x.dtype.type(epsilon))
    if gamma is not None:
        normal = normal * gamma
    return normal if beta is None else normal + beta


@op
def linear(x: Array, weight: Array, bias: Array | None = None) -> Array:
    """``x @ weight.T + bias``."""
    product = x @ weight.T
    return product if bias is None else product + bias


@op
def matmul(x: Array, y: Array, transpose_x: Bool = False, transpose_y: Bool = False) -> Array:
    """Matrix product over the last two axes."""
    return (x.swapaxes(-1, -2) if transpose_x else x) @ (y.swapaxes(-1, -2) if transpose_y else y)


@op
def conv(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    strides: Ints | None = None,
    pad_type: str = "valid",
    pad: Ints | None = None,
    dilations: Ints | None = None,
    groups: Int = 1,
) -> Array:
    """Convolution of ``x (B, C, *D)`` by ``weight (O, C / groups, *K)`` over one or two dimensions D."""
    rank, parts = x.ndim - 2, int(groups)
    steps, spread = (list(np.atleast_1d(v)) if v is not None else [1] * rank for v in (strides, dilations))
    if pad_type not in ("valid", "custom"):
        raise BundleError(_LACKS.format(f"conv with pad_type {pad_type}"))
    edges = np.reshape(pad, (rank, 2)) if pad_type == "custom" and pad is not None else np.zeros((rank, 2), int)
    padded = np.pad(x, [(0, 0), (0, 0), *map(tuple, edges)])
    reach = tuple((k - 1) * d + 1 for k, d in zip(weight.shape[2:], spread, strict=True))
    spans = np.lib.stride_tricks.sliding_window_view(padded, reach, tuple(range(2, x.ndim)))
    every = tuple(slice(None, None, s) for s in steps)
    taps = tuple(slice(None, None, d) for d in spread)
    spans = spans[(slice(None), slice(None), *every, *taps)]
    spans = spans.reshape(len(x), parts, -1, *spans.shape[2:])
    kernels = weight.reshape(parts, -1, *weight.shape[1:])
    outside, inside = "de"[:rank], "kl"[:rank]
    mixed = np.einsum(f"bgc{outside}{inside},goc{inside}->bgo{outside}", spans, kernels, optimize=True)
    mixed = mixed.reshape(len(x), -1, *mixed.shape[3:])
    return mixed if bias is None else mixed + np.reshape(bias, (-1, *[1] * rank))


@op
def gather(x: Array, indices: Array, axis: Int = 0, batch_dims: Int = 0, validate_indices: Bool = False) -> Array:
    """Slices of ``x`` along ``axis``; an index beyond it is an IndexError."""
    if batch_dims:
        raise BundleError(_LACKS.format(f"gather with batch_dims {batch_dims}"))
    return np.asarray(x.take(indices.astype(np.int64), int(axis)))


@op
def slice_by_index(
    x: Array,
    begin: Ints,
    end: Ints,
    stride: Ints | None = None,
    begin_mask: Bools | None = None,
    end_mask: Bools | None = None,
    squeeze_mask: Bools | None = None,
) -> Array:
    """A part of ``x``; a masked bound is its first or last, a squeezed axis takes ``begin`` and goes."""
    no = [False] * x.ndim
    strides = stride if stride is not None else [1] * x.ndim
    masks = (m if m is not None else no for m in (begin_mask, end_mask, squeeze_mask))
    parts = zip(begin, end, strides, *masks, strict=True)
    index = tuple(b if drop else slice(None if mb else b, None if me else e, s) for b, e, s, mb, me, drop in parts)
    return np.asarray(x[index])


@op
def split(x: Array, axis: Int, num_splits: Int | None = None, split_sizes: Ints | None = None) -> tuple[Array, ...]:
    """``x`` cut along ``axis``, into equal parts or of the sizes given."""
    if split_sizes is None:
        assert num_splits is not None
        return tuple(np.split(x, int(num_splits), int(axis)))
    return tuple(np.split(x, np.cumsum(split_sizes)[:-1], int(axis)))


@op
def concat(values: Sequence[Array], axis: Int, interleave: Bool = False) -> Array:
    """``values`` one after the other."""
    if interleave:
        raise BundleError(_LACKS.format("concat with interleave"))
    return np.concatenate([np.atleast_1d(value) for value in values], int(axis))


@op
def stack(values: Sequence[Array], axis: Int) -> Array:
    """``values`` side by side along a new axis."""
    return np.stack(values, int(axis))


@op
def reshape(x: Array, shape: Ints) -> Array:
    """``x`` in another shape: 0 keeps an axis, -1 takes what is left."""
    return x.reshape([x.shape[axis] if size == 0 else int(size) for axis, size in enumerate(shape)])


@op
def transpose(x: Array, perm: Ints) -> Array:
    """``x`` with its axes in the order ``perm``."""
    return x.transpose([int(axis) for axis in perm])


@op
def expand_dims(x: Array, axes: Ints) -> Array:
    """``x`` with new axes of size one at ``axes`` of the result."""
    return np.expand_dims(x, tuple(int(axis) for axis in axes))


@op
def squeeze(x: Array, axes: Ints | None = None) -> Array:
    """``x`` without its axes of size one: those named, or all."""
    return np.squeeze(x, None if axes is None else tuple(int(axis) for axis in axes))


@op
def tile(x: Array, reps: Ints) -> Array:
    """``x`` repeated along each axis."""
    return np.tile(x, [int(n) for n in reps])


@op
def pad(x: Array, pad: Ints, mode: str = "constant", constant_val: Number = 0.0) -> Array:
    """``x`` with a border along its last axes: pairs of before and after, in order of the axes."""
    if mode != "constant":
        raise BundleError(_LACKS.format(f"pad with mode {mode}"))
    pairs = np.reshape(pad, (-1, 2))
    return np.pad(x, [(0, 0)] * (x.ndim - len(pairs)) + [tuple(p) for p in pairs], constant_values=constant_val)


@op
def cumsum(x: Array, axis: Int = 0, exclusive: Bool = False, reverse: Bool = False) -> Array:
    """Running sum along ``axis``."""
    axis = int(axis)
    source = np.flip(x, axis) if reverse else x
    total = np.cumsum(source, axis, dtype=x.dtype)
    total = total - source if exclusive else total
    return np.flip(total, axis) if reverse else total


@op
def shape(x: Array) -> Array:
    """The sizes of ``x``."""
    return np.array(x.shape, np.int32)


@op
def fill_like(ref_tensor: Array, value: Number = 0.0) -> Array:
    """One value in another tensor's shape."""
    return np.full(ref_tensor.shape, value)


@op
def range_1d(start: Array, end: Array, step: Array) -> Array:
    """``start, start + step...`` up to before ``end``."""
    return np.arange(start.item(), end.item(), step.item(), dtype=start.dtype)


@op
def constexpr_affine_dequantize(quantized_data: Array, zero_point: Array, scale: Array, axis: Int) -> Array:
    """iOS 16 weights: ``scale * (data - zero point)``, one of each for every slice along ``axis``."""
    along = [-1 if a == axis % quantized_data.ndim else 1 for a in range(quantized_data.ndim)]
    scales, zeros = (np.reshape(v, along) if np.ndim(v) else v for v in (scale, zero_point))
    return (quantized_data.astype(np.float32) - np.float32(zeros)) * scales


@op
def constexpr_blockwise_shift_scale(data: Array, scale: Array, offset: Array | None = None) -> Array:
    """iOS 18 weights: ``scale * (data - offset)``, one of each for every block."""
    values = data.astype(np.float32)
    if offset is not None:
        values = values - _spread(offset.astype(np.float32), data.shape)
    return values * _spread(scale, data.shape)


@op
def constexpr_lut_to_dense(indices: Array, lut: Array, vector_axis: Int | None = None) -> Array:
    """iOS 18 weights: each index looked up in its block's palette ``lut (*blocks, entries, 1)``."""
    if lut.shape[-1] != 1:
        raise BundleError(_LACKS.format("constexpr_lut_to_dense with palettes of vectors"))
    block = np.ix_(*(np.arange(n) * blocks // n for n, blocks in zip(indices.shape, lut.shape, strict=False)))
    return lut[(*block, indices.astype(np.int64))][..., 0]


def _spread(values: Array, shape: Ints) -> Array:
    """One value for every element, from one for every block of a tensor of that shape."""
    for axis, (size, blocks) in enumerate(zip(shape, values.shape, strict=True)):
        values = values.repeat(size // blocks, axis) if 1 < blocks < size else values
    return values


@op
def read_state(input: Array) -> Array:  # noqa: A002 - the parameter's name in MIL
    """A state, widened for computing."""
    return input.astype(np.float32)


@op
def coreml_update_state(state: Array, value: Array) -> Array:
    """Write a state, and read it back as it was stored."""
    state[...] = value
    return state.astype(np.float32)


def _binary(function: Callable[[Array, Array], Array]) -> Callable[..., Array]:
    def of_both(x: Array, y: Array) -> Array:
        return np.asarray(function(x, y))

    return of_both


for _name, _function in {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "real_div": np.true_divide,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "equal": np.equal,
    "not_equal": np.not_equal,
    "less": np.less,
    "less_equal": np.less_equal,
    "greater": np.greater,
    "greater_equal": np.greater_equal,
    "logical_and": np.logical_and,
    "logical_or": np.logical_or,
}.items():
    OPS[_name] = _binary(_function)
