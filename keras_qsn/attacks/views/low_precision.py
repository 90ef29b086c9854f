"""The model's convolutions in fewer bits."""

import keras

from keras_qsn._core.convolution import fast_convolutions
from keras_qsn.attacks.views.base import View


class LowPrecision(View):
    """Convolutions with inputs, kernels and products rounded to `dtype`.

    Args:
        dtype: Name of a float type. Defaults to `"bfloat16"`.

    Example:

    >>> attack = ViewedAttack(FastGradientMethod(eps=0.1), LowPrecision())
    >>> x = np.full((2, 28, 28, 1), 0.5, "float32")
    >>> attack.generate(cleverhans_cnn(seed=0), x, [3, 4]).shape
    (2, 28, 28, 1)

    Limitations:
        Faster only where the machine multiplies such numbers faster. Other
        layers than `Conv2D` compute as they are.
    """

    def __init__(self, dtype="bfloat16"):
        try:
            self.dtype = keras.backend.standardize_dtype(dtype)
        except ValueError as error:
            raise ValueError(
                "`dtype` must be a float type, such as 'bfloat16'. Received: "
                f"dtype={dtype!r}. An attack looks through this view as "
                "`ViewedAttack(attack, LowPrecision())`."
            ) from error

    def see(self, logits_fn, wrapper):
        def rounded(x):
            with fast_convolutions(wrapper.model, self.dtype):
                return logits_fn(x)

        return rounded
