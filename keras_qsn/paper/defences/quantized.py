"""Networks quantized as they are deployed, and trained on with that."""

import keras

from keras_qsn import datasets
from keras_qsn import deployment
from keras_qsn.classifier.wrapper import KerasModelWrapper
from keras_qsn.paper.defences.held_out import held_out
from keras_qsn.training import DivQAT
from keras_qsn.training import QuSecNet

# Images that the ranges of activations start from.
_RANGES = 500

# Of DivQAT, the largest first: twice that costs a small network half of its
# accuracy.
_WEIGHTS = (0.4, 0.3, 0.2, 0.1)
# Accuracy on held-out images that DivQAT may cost.
_POINT = 0.01


def with_qat(model, network, data, weight=0.0, epochs=2, learning_rate=3e-4):
    """An int8 twin, trained on by DivQAT; without weight, plain training."""
    x, y = datasets.seeded_subset(
        data.x_train, data.y_train, network.train_images, network.seed
    )
    twin = deployment.quantization_aware(model, x[:_RANGES])
    net = QuSecNet(twin, DivQAT(model, weight))
    net.compile(
        keras.optimizers.Adam(learning_rate),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    batches = datasets.ShuffledBatches(x, y, 64, network.seed)
    net.fit(batches, epochs=epochs, shuffle=False, verbose=0)
    return twin


def largest_weight(model, network, data, **settings):
    """The largest weight of DivQAT that keeps plain training's accuracy.

    To a point, on held-out images; 0 where none does.
    """
    x, y = held_out(network, data)

    def right(weight):
        twin = with_qat(model, network, data, weight, **settings)
        return (KerasModelWrapper.of(twin).predict(x) == y).mean()

    least = right(0.0) - _POINT
    kept = (weight for weight in _WEIGHTS if right(weight) >= least)
    return {"weight": next(kept, 0.0)}
