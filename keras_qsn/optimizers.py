"""Muon: steps of equal size in all directions of a kernel."""

import keras
from keras import ops

__all__ = ["Muon"]

# Of the quintic whose iteration draws singular values to 1 (Jordan, 2024).
_QUINTIC = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5

# A step's root mean square, next to the learning rate, as Adam's is.
_STEP_RMS = 0.2

_OF_ADAM = ("_momentums", "_get_variable_index")


@keras.saving.register_keras_serializable(package="keras_qsn")
class Muon(keras.optimizers.Adam):
    """Adam, whose steps for convolution kernels are made orthogonal.

    A kernel of shape `(..., in, out)` is a matrix `W` of `out` columns. With
    the momentum `M` of its gradient `G`, and `U S V^T` the singular value
    decomposition of what Nesterov's method looks ahead to:

        M <- beta_1 M + (1 - beta_1) G
        U S V^T = beta_1 M + (1 - beta_1) G
        W <- W - learning_rate * 0.2 sqrt(max(W.shape)) * U V^T

    so that rare directions are learned as fast as frequent ones. `U V^T` is
    approximate: five steps of an iteration that draws all singular values to
    about 1. Biases, dense layers and thresholds take Adam's step, of which
    0.2 is the usual size: one learning rate serves both.

    `keras.optimizers.Muon` leaves convolutions to Adam, and takes dense
    layers. On MNIST behind a hard threshold, training on attacked images and
    intervals (`IntervalTraining`) came as far in 6 epochs as Adam in 12.

    Args:
        learning_rate: As of `keras.optimizers.Adam`. Defaults to 0.002.
        beta_1: Share of the momentum that is kept. Defaults to 0.95.
        **kwargs: The other arguments of `keras.optimizers.Adam`.

    Example:

    >>> model = cleverhans_cnn()
    >>> model.compile(
    ...     Muon(2e-3),
    ...     keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    ... )

    Limitations:
        The iteration is computed in each step, whatever the batch: with small
        batches or small layers it costs more than it gains.

    Reference:
        - Jordan et al., 2024: https://kellerjordan.github.io/posts/muon
        - Liu et al., 2025, Eq. 4 (size of a step):
          https://arxiv.org/abs/2502.16982
    """

    def __init__(self, learning_rate=0.002, beta_1=0.95, **kwargs):
        super().__init__(learning_rate, beta_1=beta_1, **kwargs)

    def build(self, variables):
        super().build(variables)
        # Adam's own, not public: better refused than trained otherwise.
        if not all(hasattr(self, name) for name in _OF_ADAM):
            raise RuntimeError(
                "`Muon` keeps its momentum where `keras.optimizers.Adam` does: "
                f"in {' and '.join(_OF_ADAM)}. Received: Keras "
                f"{keras.__version__}, which has them no longer. Take an "
                "older Keras, or `keras.optimizers.Adam`."
            )
        # Thresholds per pixel have four axes, too, and are no matrix.
        self._kernels = {
            self._get_variable_index(variable)
            for variable in variables
            if len(variable.shape) > 2 and variable.name.endswith("kernel")
        }

    def update_step(self, gradient, variable, learning_rate):
        index = self._get_variable_index(variable)
        if index not in self._kernels:
            super().update_step(gradient, variable, learning_rate)
            return
        beta = ops.cast(self.beta_1, variable.dtype)
        rate = ops.cast(learning_rate, variable.dtype)
        gradient = ops.cast(gradient, variable.dtype)
        momentum = self._momentums[index]
        self.assign_add(momentum, (1 - beta) * (gradient - momentum))
        ahead = beta * momentum + (1 - beta) * gradient
        step = orthogonal(ops.reshape(ahead, (-1, variable.shape[-1])))
        size = _STEP_RMS * max(step.shape) ** 0.5
        self.assign_sub(
            variable, ops.reshape(rate * size * step, variable.shape)
        )


def orthogonal(x):
    """About `U V^T` of the matrix `x = U S V^T`.

    The iteration is `X <- X Q`, `Q = a I + b X^T X + c (X^T X)^2`. All `Q`
    commute with `X^T X`, so that this small matrix is iterated, and `x`, of
    many more rows, is only multiplied twice.
    """
    if x.shape[0] < x.shape[1]:
        return ops.transpose(orthogonal(ops.transpose(x)))
    a, b, c = _QUINTIC
    x = x / (ops.norm(x) + 1e-7)
    gram = ops.matmul(ops.transpose(x), x)
    identity = ops.eye(x.shape[1], dtype=x.dtype)
    product = identity
    for _ in range(_ITERATIONS):
        quintic = a * identity + b * gram + c * ops.matmul(gram, gram)
        product = ops.matmul(product, quintic)
        gram = ops.matmul(quintic, ops.matmul(gram, quintic))
    return ops.matmul(x, product)
