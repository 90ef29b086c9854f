"""A model of few bits, in float32."""

from keras_qsn.attacks.views.base import View
from keras_qsn.classifier.twin import float32_twin
from keras_qsn.classifier.twin import in_few_bits


class FullPrecision(View):
    """The same layers and weights, computed in float32.

    In float16 a gradient is rounded to zero below some `6e-8`, and logits
    overflow above 65504; in bfloat16 eight bits are left of either. What is
    found in float32 is judged on the model itself.

    Raises:
        CannotRebuild: If the configuration of the model attacked does not
            make it again.

    Example:

    >>> model = keras.Sequential([
    ...     keras.Input((4,)), keras.layers.Dense(3, dtype="float16")
    ... ])
    >>> attack = ViewedAttack(FastGradientMethod(eps=0.1), FullPrecision())
    >>> attack.generate(model, np.full((2, 4), 0.5, "float32")).shape
    (2, 4)

    Limitations:
        Images that only the rounding of few bits moves across the boundary
        are not seen. A subclassed model is not made again.
    """

    # Functions are kept for the model that they are of.
    key = None

    def see(self, logits_fn, wrapper):
        return logits_fn

    def model(self, wrapper):
        if not in_few_bits(wrapper.model):
            return wrapper
        twin = wrapper.compiled("float32 twin", lambda: float32_twin(wrapper))
        # The structure is that of then, the weights are those of now.
        twin.model.set_weights(wrapper.model.get_weights())
        return twin
