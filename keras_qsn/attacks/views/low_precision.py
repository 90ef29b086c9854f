"""The model's inner layers in fewer bits."""

import numpy as np
import tensorflow as tf

from keras_qsn._core.precision import check_float_type
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
        are off by up to two hundredths of their size: an attack that climbs
        goes as far past the boundary before it stops early, and a search for
        the nearest point of the boundary may end before it.
    """

    def __init__(self, dtype="bfloat16"):
        hint = (
            ". An attack looks through this view as "
            "`ViewedAttack(attack, LowPrecision())`."
        )
        self.dtype = check_float_type("dtype", dtype, hint)

    @property
    def rounding(self):
        # Leads are off by half as much, of the networks measured.
        one = np.ones((), tf.as_dtype(self.dtype).as_numpy_dtype)
        return 2 * float(np.spacing(one))

    def see(self, logits_fn, wrapper):
        def rounded(x):
            with low_precision(wrapper.model, self.dtype):
                return logits_fn(x)

        return rounded
