"""The gradient, smoothed as if of many places at once."""

import numpy as np
import tensorflow as tf

from keras_qsn._core.numbers import check_positive
from keras_qsn.attacks.views.base import View


class TranslationInvariance(View):
    """Translation invariance (TI): the same logits, a smoothed gradient.

    `dJ/dx -> W * dJ/dx`, with `W` a Gaussian kernel whose entries sum to 1:
    about the mean of the gradients at the image moved a few pixels each way.
    Adversaries depend less on where in the image the source looks.

    Put it outermost: it is the gradient with respect to the image itself that
    is smoothed.

    Args:
        size: Odd integer >= 3. Side of the kernel in pixels. Defaults to
            `15`, the paper's for 299 pixels; for 28 take `5` or `7`.
        sigma: Float > 0, the kernel's standard deviation in pixels. Defaults
            to `None`: `(size - 1) / 6`, that of the authors' code.

    Raises:
        ValueError: If an argument is out of range; when an attack looks, if
            images have no height and width.

    Example:

    >>> attack = MomentumIterativeMethod(eps=0.3, nb_iter=10)
    >>> attack = ViewedAttack(attack, TranslationInvariance(7))
    >>> x = np.full((2, 28, 28, 1), 0.5, "float32")
    >>> attack.generate(cleverhans_cnn(seed=0), x, [3, 4]).shape
    (2, 28, 28, 1)

    Limitations:
        For transfer: on the model itself it makes an attack weaker. A kernel
        much wider than what networks look at leaves a blur to follow.

    Reference:
        - Dong et al., 2019: https://arxiv.org/abs/1904.02884
    """

    def __init__(self, size=15, sigma=None):
        self._keep_counts(3, size=size)
        if self.size % 2 == 0:
            raise ValueError(f"`size` must be odd. Received: size={size}")
        if sigma is not None:
            hint = ", or None for (size - 1) / 6"
            sigma = check_positive("sigma", sigma, hint)
        self.sigma = sigma

    def see(self, logits_fn, wrapper):
        sigma = self.sigma or (self.size - 1) / 6
        kernel = gaussian(self.size, sigma)[:, :, None, None]

        @tf.custom_gradient
        def smoothing(x):
            if len(x.shape) != 4:
                raise ValueError(
                    "`TranslationInvariance` needs images of shape (height, "
                    "width, channels). Received: images of shape "
                    f"{tuple(x.shape[1:])}"
                )
            each = tf.repeat(tf.constant(kernel), x.shape[-1], axis=2)

            def smoothed(upstream):
                return tf.nn.depthwise_conv2d(
                    upstream, each, [1, 1, 1, 1], "SAME"
                )

            return tf.identity(x), smoothed

        return lambda x: logits_fn(smoothing(x))


def gaussian(size, sigma):
    """A square Gaussian kernel that sums to 1, float32."""
    way = np.arange(size) - (size - 1) / 2
    line = np.exp(-(way**2) / (2 * sigma**2))
    line /= line.sum()
    return np.outer(line, line).astype("float32")
