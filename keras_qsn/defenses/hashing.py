"""Hash compression: kernels whose weights share a few numbers."""

import keras
import numpy as np
import tensorflow as tf

from keras_qsn._core.numbers import check_count
from keras_qsn._core.numbers import check_number
from keras_qsn.certification.rules import convolutional
from keras_qsn.certification.rules import linear
from keras_qsn.certification.rules.registry import register_rule

# Of the finalizer of SplitMix64 (Steele et al., 2014): a bijection of 64 bits
# in which each bit of the input changes half of the output's.
_STEP = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def hashes(count, seed, num_buckets):
    """A bucket and a sign for each of `count` weights, fixed by the seed.

    Args:
        count: Integer, how many weights.
        seed: Integer.
        num_buckets: Integer, how many buckets.

    Returns:
        int32 buckets in `0..num_buckets - 1` and float32 signs, `-1` or `1`,
        shape `(count,)`.
    """
    start = _mixed(np.uint64(seed % 2**64) + np.arange(1, 3, dtype="uint64"))
    places = np.arange(count, dtype="uint64")
    bucket, sign = (_mixed(first + places * _STEP) for first in start)
    bucket = (bucket % np.uint64(num_buckets)).astype("int32")
    return bucket, np.where(sign >> np.uint64(63), 1, -1).astype("float32")


def virtual_kernel(buckets, index, signs, shape):
    """`V[i] = signs[i] * buckets[index[i]]`, as a tensor of this shape.

    Backward, `dL/dbuckets[k]` is the sum of `signs[i] * dL/dV[i]` over the
    `i` with `index[i] = k`.
    """

    @tf.custom_gradient
    def kernel(buckets):
        def backward(upstream):
            # Dense: that of a gather would be slices, one for each weight.
            signed = signs * tf.reshape(upstream, [-1])
            return tf.math.unsorted_segment_sum(signed, index, buckets.shape[0])

        return tf.reshape(signs * tf.gather(buckets, index), shape), backward

    return kernel(tf.convert_to_tensor(buckets))


class _Hashed:
    """What a layer with a kernel has instead of it: buckets."""

    def __init__(self, *args, compression=1 / 8, seed=0, **kwargs):
        super().__init__(*args, **kwargs)
        if not 0 < check_number("compression", compression) <= 1:
            raise ValueError(
                "`compression` must lie in (0, 1], the share of the weights "
                f"that is stored. Received: compression={compression}"
            )
        if self.lora_rank:
            self.enable_lora(self.lora_rank)
        self.compression = float(compression)
        self.seed = check_count("seed", seed, 0)

    def add_weight(self, *args, **kwargs):
        if kwargs.get("name") != "kernel":
            return super().add_weight(*args, **kwargs)
        shape, initializer = kwargs["shape"], kwargs["initializer"]
        size = int(np.prod(shape))
        count = int(np.ceil(self.compression * size))
        self._kernel_shape = tuple(shape)
        self._index, self._signs = hashes(size, self.seed, count)

        def initial(_, dtype=None):
            # At the scale of the whole kernel, whose fan-in it has.
            draw = keras.initializers.get(initializer)(shape, dtype=dtype)
            return tf.reshape(draw, [-1])[:count]

        own = {"name": "buckets", "shape": (count,), "initializer": initial}
        return super().add_weight(*args, **{**kwargs, **own})

    @property
    def buckets(self):
        """The weights that are stored and trained."""
        return self._kernel

    @property
    def kernel(self):
        """The kernel that they make."""
        return virtual_kernel(
            self._kernel, self._index, self._signs, self._kernel_shape
        )

    def save_own_variables(self, store):
        keras.layers.Layer.save_own_variables(self, store)

    def load_own_variables(self, store):
        keras.layers.Layer.load_own_variables(self, store)

    def enable_lora(self, *args, **kwargs):
        raise NotImplementedError(
            f"{type(self).__name__} has no kernel of its own that LoRA could "
            "adapt. Take the layer that it compresses."
        )

    def quantize(self, *args, **kwargs):
        raise NotImplementedError(
            f"{type(self).__name__} has no kernel of its own to be quantized."
        )

    def get_config(self):
        own = {"compression": self.compression, "seed": self.seed}
        return {**super().get_config(), **own}


@keras.saving.register_keras_serializable(package="keras_qsn")
class HashedDense(_Hashed, keras.layers.Dense):
    """`Dense` whose weights share a few numbers, by a hash (HashedNets).

    With `m` weights and `K = ceil(compression * m)` buckets `w`:

        y = activation(x V + b),   V[i, j] = xi(i, j) * w[h(i, j)]

    where `h` and `xi` are fixed hashes to `0..K-1` and to `-1` and `1`,
    neither stored nor trained. `kernel` is `V`, `buckets` are `w`; a bucket's
    gradient is the signed sum of its weights'. The bias is not hashed.

    First line of the defensive hash classifier of Liu et al. (2023), which
    `inhibit_gradients` is the second of.

    Args:
        units: As for `keras.layers.Dense`.
        compression: Float in `(0, 1]`, the share of the weights that is
            stored. The papers' is unknown; the default is ours, `1 / 8`. At
            `1` weights still share buckets, as a hash collides.
        seed: Integer >= 0, decides the hashes. Give each layer its own.
            Defaults to `0`.
        **kwargs: As for `keras.layers.Dense`, but for LoRA. Initial buckets
            are the first `K` numbers of an initial kernel; regularizer and
            constraint are of the buckets.

    Raises:
        ValueError: If `compression` is outside `(0, 1]`, or another argument
            out of range.

    Example:

    >>> layer = HashedDense(10, compression=1 / 16)
    >>> layer(np.ones((2, 64), "float32")).shape
    TensorShape([2, 10])
    >>> tuple(layer.buckets.shape), tuple(layer.kernel.shape)
    ((40,), (64, 10))

    Limitations:
        Smaller, but no defence: the layer is differentiable, and every
        white-box attack goes through it as through a `Dense`. Memory and time
        at inference are those of the whole kernel.

    Reference:
        - Chen et al., 2015 (HashedNets): https://arxiv.org/abs/1504.04788
        - Liu et al., 2023: https://doi.org/10.1109/TNNLS.2021.3089128
          (reconstruction from its abstract)
    """

    def __init__(self, units, compression=1 / 8, seed=0, **kwargs):
        super().__init__(units, compression=compression, seed=seed, **kwargs)


@keras.saving.register_keras_serializable(package="keras_qsn")
class HashedConv2D(_Hashed, keras.layers.Conv2D):
    """`Conv2D` whose weights share a few numbers, by a hash.

    As `HashedDense`, of the kernel's entries in the order of its shape:
    rows, columns, channels, filters.

    Args:
        filters: As for `keras.layers.Conv2D`.
        kernel_size: As for `keras.layers.Conv2D`.
        compression: As for `HashedDense`. Defaults to `1 / 8`, ours.
        seed: As for `HashedDense`.
        **kwargs: As for `keras.layers.Conv2D`, but for LoRA; initializer,
            regularizer and constraint as for `HashedDense`.

    Raises:
        ValueError: If `compression` is outside `(0, 1]`, or another argument
            out of range.

    Example:

    >>> layer = HashedConv2D(8, 3, strides=2)
    >>> layer(np.ones((1, 9, 9, 4), "float32")).shape
    TensorShape([1, 4, 4, 8])
    >>> tuple(layer.buckets.shape), tuple(layer.kernel.shape)
    ((36,), (3, 3, 4, 8))

    Limitations:
        As for `HashedDense`. Which layers the paper hashes is unknown.

    Reference:
        - Chen et al., 2015 (HashedNets): https://arxiv.org/abs/1504.04788
    """

    def __init__(
        self, filters, kernel_size, compression=1 / 8, seed=0, **kwargs
    ):
        super().__init__(
            filters, kernel_size, compression=compression, seed=seed, **kwargs
        )


# Of the kernel that the buckets make, which signs change exactly.
register_rule(HashedDense)(linear.dense)
register_rule(HashedConv2D)(convolutional.convolution)


def _mixed(bits):
    bits = (bits ^ (bits >> np.uint64(30))) * _FIRST
    bits = (bits ^ (bits >> np.uint64(27))) * _SECOND
    return bits ^ (bits >> np.uint64(31))
