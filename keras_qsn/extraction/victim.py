"""The model that is copied, as its thief sees it: answers that are paid."""

from keras_qsn.classifier.queries import Queries
from keras_qsn.classifier.queries import QueryModel
from keras_qsn.classifier.wrapper import KerasModelWrapper

# What `Queries` takes beside its function and its budget.
_OF_A_SERVICE = ("answers", "batch_size", "attempts", "wait")


class Victim:
    """A classifier to copy: a Keras model, or a `QueryModel`.

    Args:
        model: Keras classifier, or a `KerasModelWrapper` around one.
    """

    def __init__(self, model):
        self.wrapper = KerasModelWrapper.of(model)
        model = self.wrapper.model
        self._asked = model.asked if isinstance(model, QueryModel) else None

    @property
    def left(self):
        """Images that its own budget allows for; `None`: any number."""
        if self._asked is None or self._asked.budget is None:
            return None
        return self._asked.budget - self._asked.queries

    def queries(self, budget, sending):
        """`Queries` of a thief's own, which counts from 0 to its budget.

        Args:
            budget: Images that may be sent.
            sending: Function called before each time that images are sent.
        """
        told, asked = {}, self._asked
        function = self.wrapper.logits
        if asked is not None:
            told = {name: getattr(asked, name) for name in _OF_A_SERVICE}
            function = asked.function

        def send(x):
            sending()
            if asked is not None:
                asked.count(len(x))
            return function(x)

        return Queries(
            send,
            self.wrapper.num_classes,
            budget=budget,
            name="paid",
            **told,
        )

    def check_answers(self, answers):
        """Refuse to be asked for probabilities where there are none."""
        classes = self._asked is not None and self._asked.answers == "classes"
        if classes and answers == "soft":
            raise ValueError(
                "Soft answers need a victim that tells scores. Received: a "
                'victim of classes alone, for answers="soft". Say '
                'answers="hard".'
            )

    def predict(self, x):
        """Classes of images, outside of any thief's budget."""
        if self._asked is None:
            return self.wrapper.predict(x)
        # Not in a graph: the service may be one, and wait for its thread.
        return self._asked.ask(x).argmax(-1).astype("int32")

    def told(self, shape):
        """What tells it from another victim, as plain values.

        A service is not asked for it: its shape and its kind must do.
        """
        if self._asked is None:
            return {"fingerprint": self.wrapper.fingerprint(shape)}
        return {
            "num_classes": self.wrapper.num_classes,
            "answers": self._asked.answers,
        }


def check_copy(copy, victim):
    """The copy's `KerasModelWrapper`, if it can be taught by the victim."""
    wrapper, of = KerasModelWrapper.of(copy), victim.wrapper
    if wrapper.model is of.model:
        raise ValueError(
            "`copy` must be another model than `victim`. Received: "
            f"'{of.model.name}' as both."
        )
    for what in ("num_classes", "input_shape"):
        own, its = getattr(of, what), getattr(wrapper, what)
        if own != its:
            raise ValueError(
                f"`copy` must have the `{what}` of the victim, {own}. "
                f"Received: a copy with {what}={its}"
            )
    if not wrapper.model.trainable_weights:
        raise ValueError(
            "`copy` must have weights to train. Received: "
            f"'{wrapper.model.name}', which has none. Is it frozen?"
        )
    return wrapper
