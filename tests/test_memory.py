"""Images at once, by number or by memory."""

import keras
import numpy as np
import pytest

from conftest import small_cnn
from keras_qsn.attacks import CubeAttack
from keras_qsn.attacks import FastGradientMethod
from keras_qsn.attacks.adaptive import corner_search
from keras_qsn.classifier.memory import bytes_of_image
from keras_qsn.classifier.memory import images_at_once
from keras_qsn.classifier.queries import QueryModel
from keras_qsn.classifier.wrapper import KerasModelWrapper
from keras_qsn.evaluation import evaluate_robustness
from keras_qsn.evaluation import transfer_matrix
from keras_qsn.layers import ConstantQuantization

SHAPE = (28, 28, 1)


def wide(filters):
    """A network that keeps `28 * 28 * filters` numbers of an image."""
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input(SHAPE),
            layers.Conv2D(filters, 3, padding="same"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(10),
        ]
    )


def at_once(batch_size, model):
    return images_at_once(batch_size, KerasModelWrapper.of(model), SHAPE)


def test_what_is_counted_holds_all_that_layers_make():
    model = wide(100)
    made = sum(4 * np.prod(layer.output.shape[1:]) for layer in model.layers)
    counted = bytes_of_image(KerasModelWrapper.of(model), SHAPE)
    assert made <= counted < 3 * made


@pytest.mark.parametrize("text, share", [("1GB", 1), ("512mb", 0.5)])
def test_a_batch_is_what_fits(text, share):
    model = wide(3000)
    each = bytes_of_image(KerasModelWrapper.of(model), SHAPE)
    assert at_once(text, model) == int(share * 2**30 / each) > 1


def test_a_batch_has_an_image_at_least_and_128_at_most():
    assert at_once("1KB", wide(10)) == 1
    assert at_once("1.5 GB", wide(1)) == at_once(None, wide(1)) == 128
    assert at_once(1000, wide(1)) == 1000


def test_by_default_a_large_network_gets_fewer():
    assert at_once(None, wide(20_000)) < 20


def test_a_network_that_keeps_its_own_memory_is_asked_as_before():
    network = QueryModel(lambda x: x[:, :10, 0, 0], 10, SHAPE)
    assert at_once(None, network) == 128


@pytest.mark.parametrize("bad", ["much", "GB", "0MB", "-1GB", "3 images", 0])
def test_what_is_no_batch_size_is_refused(bad, trained, data):
    with pytest.raises(ValueError, match="batch_size.*whole number"):
        FastGradientMethod().run(trained["none"], *data, batch_size=bad)


def test_no_list_is_a_batch_size(trained, data):
    with pytest.raises(TypeError, match="batch_size"):
        FastGradientMethod().run(trained["none"], *data, batch_size=[1])


def test_an_evaluation_in_little_memory_finds_the_same(trained, data):
    model = trained["soft"]
    each = bytes_of_image(KerasModelWrapper.of(model), SHAPE)
    x, y = (part[:20] for part in data)
    few, many = (
        evaluate_robustness(
            *(model, x, y, 0.1),
            plan=[FastGradientMethod(0.1)],
            batch_size=size,
            checks="light",
            verbose=0,
        )
        for size in (f"{7.5 * each / 2**10:.0f}KB", 20)
    )
    assert few.settings["batch_size"] == 7
    np.testing.assert_array_equal(few.robust, many.robust)


def test_a_matrix_has_the_batches_of_its_largest_network(data):
    x, y = (part[:4] for part in data)
    models = {"small": wide(1), "large": wide(20_000)}
    matrix = transfer_matrix(models, x, y, [FastGradientMethod(0.1)], verbose=0)
    assert matrix.settings["batch_size"] == at_once(None, models["large"])


def test_a_local_search_sees_fewer_large_images_at_once(monkeypatch, data):
    model = small_cnn(ConstantQuantization(2, hard=True))
    x, y = (part[:4] for part in data)
    attack = CubeAttack(0.1, nb_iter=1, nb_restarts=1, nb_polish=2)
    whole = attack.generate(model, x, y, verbose=0)
    # As many as the images themselves: one neighbour of each at a time.
    monkeypatch.setattr(corner_search, "_PIXELS", 4 * 28 * 28)
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    parts = attack.generate(clone, x, y, verbose=0)
    np.testing.assert_array_equal(whole, parts)
