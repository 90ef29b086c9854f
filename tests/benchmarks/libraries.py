"""One classifier in three libraries, and one way to call their attacks.

An attack becomes a function from images and labels, NumPy arrays as in Keras,
to adversarial images; with `targeted` the labels are the targets.
"""

import typing

import keras
import numpy as np
import tensorflow as tf
import torch
from art.estimators.classification import TensorFlowV2Classifier

from keras_qsn.models import KerasModelWrapper

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
BATCH = 128


class Models(typing.NamedTuple):
    """The classifier in Keras and as ART and torchattacks want it."""

    keras: keras.Model
    art: TensorFlowV2Classifier
    torch: torch.nn.Module

    def classes(self, library, x):
        """What the model that this library attacks makes of `x`."""
        if library == "torchattacks":
            return in_batches(self._torch_classes)(x, x)
        return self.keras.predict(x, verbose=0).argmax(-1)

    def _torch_classes(self, x, _):
        with torch.no_grad():
            return self.torch(channels_first(x)).argmax(-1).numpy()


def in_all_libraries(model, x):
    """The Keras `model` for every library, compared on the images `x`."""
    art = TensorFlowV2Classifier(
        model,
        model.output_shape[-1],
        model.input_shape[1:],
        loss_object=LOSS,
        clip_values=(0, 1),
    )
    return Models(model, art, torch_twin(model, x))


def in_batches(generate):
    def run(x, labels):
        starts = range(0, len(x), BATCH)
        batches = [slice(start, start + BATCH) for start in starts]
        return np.concatenate([generate(x[b], labels[b]) for b in batches])

    return run


def by_keras_qsn(attack, models, targeted=False):
    name = "y_target" if targeted else "y"
    return lambda x, labels: attack.generate(
        models.keras, x, batch_size=BATCH, **{name: labels}
    )


def by_cleverhans(function, models, **settings):
    wrapper = KerasModelWrapper(models.keras)
    return in_batches(
        lambda x, labels: function(
            wrapper,
            tf.constant(x),
            norm=np.inf,
            clip_min=0.0,
            clip_max=1.0,
            y=tf.constant(labels),
            **settings,
        )
    )


def by_art(attack):
    return lambda x, labels: attack.generate(x, np.eye(10)[labels])


def by_torchattacks(attack, targeted=False):
    if targeted:
        attack.set_mode_targeted_by_label(quiet=True)

    def generate(x, labels):
        labels = torch.tensor(labels, dtype=torch.long)
        return channels_last(attack(channels_first(x), labels))

    return in_batches(generate)


def torch_twin(model, x):
    """A `torch.nn.Module` with the layers and weights of `model`.

    It takes images as PyTorch does, channels first; see `channels_first`.

    Args:
        model: `keras.Sequential` of `Conv2D`, `Flatten` and `Dense` layers,
            with ReLU or no activation.
        x: Images on which the logits of the two are compared.

    Raises:
        TypeError: If a layer is of another kind.
        ValueError: If any logit differs by more than 1e-4.
    """
    shape, modules = model.input_shape, []
    for layer in model.layers:
        modules += _modules(layer, shape)
        shape = layer.output.shape
    twin = torch.nn.Sequential(*modules).eval()
    with torch.no_grad():
        logits = twin(channels_first(x)).numpy()
    difference = np.abs(logits - model.predict(x, verbose=0)).max()
    if not difference < 1e-4:
        raise ValueError(
            "The logits in Keras and in PyTorch must agree to 1e-4. "
            f"Received: a difference of {difference:.2g}"
        )
    return twin


def channels_first(x):
    """NumPy images to a PyTorch tensor, `(images, channels, ...)`."""
    return torch.tensor(np.moveaxis(x, -1, 1))


def channels_last(x):
    """A PyTorch tensor to NumPy images, `(images, ..., channels)`."""
    return np.moveaxis(x.detach().numpy(), 1, -1)


class _Flatten(torch.nn.Module):
    """Keras' order of pixels, with the channel last."""

    def forward(self, x):
        return torch.moveaxis(x, 1, -1).flatten(1)


def _modules(layer, shape):
    """The PyTorch modules for a Keras layer with inputs of this shape."""
    if isinstance(layer, keras.layers.Flatten):
        return [_Flatten()]
    if not isinstance(layer, (keras.layers.Conv2D, keras.layers.Dense)):
        raise TypeError(
            "The model must be made of Conv2D, Flatten and Dense layers. "
            f"Received: {layer!r}"
        )
    kernel, bias = (torch.tensor(w) for w in layer.get_weights())
    padding = []
    if isinstance(layer, keras.layers.Dense):
        kernel = kernel.T
        module = torch.nn.Linear(kernel.shape[1], kernel.shape[0])
    else:
        if layer.padding == "same":
            padding = [torch.nn.ZeroPad2d(_same(layer, shape))]
        kernel = kernel.permute(3, 2, 0, 1)
        module = torch.nn.Conv2d(
            kernel.shape[1], kernel.shape[0], kernel.shape[2:], layer.strides
        )
    module.weight.data, module.bias.data = kernel.contiguous(), bias
    relu = layer.activation is keras.activations.relu
    return [*padding, module, *([torch.nn.ReLU()] if relu else [])]


def _same(layer, shape):
    """Left, right, top and bottom: an odd pixel goes right and down."""
    padding = []
    for size, kernel, stride in zip(
        shape[2:0:-1], layer.kernel_size[::-1], layer.strides[::-1]
    ):
        steps = -(-size // stride)
        total = max((steps - 1) * stride + kernel - size, 0)
        padding += [total // 2, total - total // 2]
    return padding
