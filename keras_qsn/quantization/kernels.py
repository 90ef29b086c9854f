"""Loops over thresholds: compiled with XLA, or made of plain operations.

XLA fuses many thresholds into one pass over the pixels, but a function that
must be compiled is refused by ONNX, LiteRT and servers without XLA. So a graph
gets plain operations, fit for export, unless it asks for compiled ones.
"""

import contextlib
import contextvars
import functools

import numpy as np
import tensorflow as tf

# Thresholds summed by one compiled loop body. The body is unrolled, so XLA
# fuses a whole group into a single pass over the pixels; more levels mean
# more passes, never more memory.
_GROUP = 16

_COMPILED = contextvars.ContextVar("compiled", default=False)


@contextlib.contextmanager
def compiled(wanted=True):
    """Within it, forward passes in graphs are compiled: not for export.

    Args:
        wanted: Whether to; `False` leaves it as it is.
    """
    token = _COMPILED.set(wanted or _COMPILED.get())
    try:
        yield
    finally:
        _COMPILED.reset(token)


def forward(kernel):
    """A function of images and thresholds that applies a kernel.

    Args:
        kernel: Function of `x`, `levels` and `group`, as for `total`, that
            serves any `x` with which each of the `levels` broadcasts.
    """
    # Not `functools.partial`: TensorFlow would take `group` for an argument
    # that is missing, and write all pixels into the error it then drops.
    fused = compile_kernel(lambda x, levels: kernel(x, levels, group=_GROUP))

    def call(x, thresholds):
        if tf.executing_eagerly() or _COMPILED.get():
            y = fused(rows(x), levels_of(x, thresholds))
            return tf.reshape(y, tf.shape(x))
        # One threshold at a time: nothing is fused, each takes memory.
        last = len(thresholds.shape) - 1
        levels = tf.transpose(thresholds, [last, *range(last)])
        return kernel(x, levels, group=1)

    return call


def compile_kernel(kernel):
    """Compile a kernel with XLA: one trace for any batch and image size.

    Args:
        kernel: Function of images as rows, `x` of shape `(batch, pixels)`,
            thresholds as `levels`, shape `(m, pixels)` or `(m, 1)`, and any
            number of tensors like `x`.
    """

    @functools.cache
    def trace(dtype, levels_shape, num_images):
        images = [tf.TensorSpec([None, None], dtype)] * num_images
        function = tf.function(kernel, autograph=False, jit_compile=True)
        return function.get_concrete_function(
            images[0], tf.TensorSpec(levels_shape, dtype), *images[1:]
        )

    def call(x, levels, *upstream):
        # Pixels are counted at run time, unless one threshold serves them all.
        shape = (levels.shape[0], 1 if levels.shape[1] == 1 else None)
        return trace(x.dtype, shape, 1 + len(upstream))(x, levels, *upstream)

    return call


def rows(x):
    """One row of pixels for each image."""
    return tf.reshape(x, [tf.shape(x)[0], tf.reduce_prod(tf.shape(x)[1:])])


def levels_of(x, thresholds):
    """Thresholds as (m, pixels), or (m, 1) when all pixels share them."""
    count = thresholds.shape[-1]
    if not _all_shared(thresholds):
        full = tf.concat([tf.shape(x)[1:], [count]], 0)
        thresholds = tf.broadcast_to(thresholds, full)
    return tf.transpose(tf.reshape(thresholds, [-1, count]))


def summed_axis(levels):
    """Pixels, when they share a threshold (the batch is left), else batch."""
    return 1 if levels.shape[1] == 1 else 0


def like_thresholds(d_levels, x, thresholds):
    """Undo `levels_of` for a gradient: sum over the pixels that share."""
    if _all_shared(thresholds):
        # (m, batch): the batch is what is left to sum.
        d_levels = tf.reduce_sum(d_levels, 1)
        return tf.reshape(d_levels, thresholds.shape)
    full = tf.concat([tf.shape(x)[1:], [thresholds.shape[-1]]], 0)
    per_pixel = tf.reshape(tf.transpose(d_levels), full)
    shared = [i for i, n in enumerate(thresholds.shape[:-1]) if n == 1]
    return tf.reduce_sum(per_pixel, shared, keepdims=True)


def total(term, x, levels, group=_GROUP):
    """The sum of `term` over all thresholds, one after the other.

    Args:
        term: Function of a threshold, with a result like `x`.
        x: Tensor.
        levels: The thresholds, along the first axis.
        group: How many are taken at a time.
    """
    count = levels.shape[0]
    if count == 1:
        return term(levels[0])
    size = min(count, group)
    num_groups = -(-count // size)
    missing = num_groups * size - count
    if missing:
        # A threshold at infinity is never reached and has no slope.
        levels = tf.pad(levels, [[0, missing], [0, 0]], constant_values=np.inf)
    shape = tf.concat([[num_groups, size], tf.shape(levels)[1:]], 0)
    groups = tf.reshape(levels, shape)

    def body(index, found):
        for threshold in tf.unstack(groups[index], size):
            found += term(threshold)
        return index + 1, found

    return _loop(body, num_groups, tf.zeros_like(x))


def map_levels(function, levels):
    """`function` of each threshold, stacked along the first axis."""
    count = levels.shape[0]
    results = tf.TensorArray(levels.dtype, size=count)

    def body(index, results):
        return index + 1, results.write(index, function(levels[index]))

    return _loop(body, count, results).stack()


def _all_shared(thresholds):
    return all(length == 1 for length in thresholds.shape[:-1])


def _loop(body, count, state):
    if count == 1:
        return body(0, state)[1]
    return tf.while_loop(
        lambda index, _: index < count,
        body,
        (0, state),
        maximum_iterations=count,
        parallel_iterations=1,
    )[1]
