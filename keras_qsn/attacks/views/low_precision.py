"""The model's inner layers in fewer bits."""

import keras

from keras_qsn._core.precision import low_precision
from keras_qsn.attacks.views.base import View


class LowPrecision(View):
    """Inner layers that compute in `dtype`, as under a mixed policy.

    Weights are rounded where they are read, activations stay in `dtype` from
    one layer to the next. The image, quantizers and other layers that are
    none of Keras' own, the logits and what follows them are float32.

    Args:
        dtype: Name of a float type. Defaults to `"bfloat16"`.

    Example:

    >>> attack = ViewedAttack(FastGradientMethod(eps=0.1), LowPrecision())
    >>> x = np.full((2, 28, 28, 1), 0.5, "float32")
    >>> attack.generate(cleverhans_cnn(seed=0), x, [3, 4]).shape
    (2, 28, 28, 1)

    Limitations:
        Faster only where the machine multiplies such numbers faster. Logits
        are off by some hundredths of their size: a search that stops at the
        class boundary may stop before it.
    """

    def __init__(self, dtype="bfloat16"):
        try:
            self.dtype = keras.backend.standardize_dtype(dtype)
        except ValueError:
            self.dtype = None
        if not (self.dtype and keras.backend.is_float_dtype(self.dtype)):
            raise ValueError(
                "`dtype` must be a float type, such as 'bfloat16'. Received: "
                f"dtype={dtype!r}. An attack looks through this view as "
                "`ViewedAttack(attack, LowPrecision())`."
            )

    def see(self, logits_fn, wrapper):
        def rounded(x):
            with low_precision(wrapper.model, self.dtype):
                return logits_fn(x)

        return rounded
