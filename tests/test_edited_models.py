"""Models changed after a first attack: what was compiled for them is void."""

import keras
import numpy as np
import pytest

from keras_qsn import attacks
from keras_qsn.layers import ConstantQuantization

layers = keras.layers
RNG = np.random.default_rng(0)
X = RNG.uniform(size=(30, 6, 6, 1)).astype("float32")
ATTACKS = [
    attacks.FastGradientMethod(0.2),
    attacks.ProjectedGradientDescent(0.2, nb_iter=2),
    attacks.SquareAttack(0.2, nb_queries=3),
    attacks.CarliniWagnerL2(max_iterations=2, binary_search_steps=1),
]


def sequential(*rest):
    return keras.Sequential([keras.Input((6, 6, 1)), *rest])


def network():
    return sequential(
        layers.Flatten(), layers.Dense(12, "relu"), layers.Dense(10)
    )


def other_head(model):
    model.pop()
    model.add(layers.Dense(3))


def enable_lora(model):
    model.layers[1].enable_lora(2)
    model.layers[1].lora_kernel_b.assign(RNG.normal(size=(2, 12)))


def other_activation(model):
    model.layers[1].activation = keras.activations.tanh


def other_settings(model):
    model.layers[1].use_bias = False
    model.layers[1].bias = None


def other_order(model):
    last = model.layers[-1]
    model.pop()
    model.add(layers.Rescaling(-1.0))
    model.add(last)


EDITS = [other_head, enable_lora, other_activation, other_settings, other_order]


def agreement(attack, model):
    result = attack.run(model, X, verbose=0)
    found = model.predict(result.x_adv, verbose=0).argmax(-1)
    return (result.prediction == found).mean()


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize(
    "attack", ATTACKS, ids=lambda attack: type(attack).__name__
)
def test_attacks_see_the_model_as_it_is(attack, edit):
    model = network()
    for layer in model.layers[1:]:
        layer.bias.assign(RNG.normal(size=layer.bias.shape))
    attack.generate(model, X, verbose=0)
    edit(model)
    assert agreement(attack, model) == 1
    # Another model of the same layers, never attacked before.
    np.testing.assert_array_equal(
        attack.generate(model, X, verbose=0),
        attack.generate(sequential(*model.layers), X, verbose=0),
    )


@pytest.mark.parametrize("attack", ATTACKS[:2], ids=repr)
def test_a_layer_replaced_in_an_inner_model(attack):
    inner = sequential(
        layers.Flatten(), layers.Dense(12, "relu"), layers.Dense(12)
    )
    model = sequential(inner, layers.Dense(4))
    attack.run(model, X, verbose=0)
    inner.pop()
    inner.add(layers.Dense(12, "tanh"))
    assert agreement(attack, model) == 1


def test_a_quantizer_made_hard():
    quantizer = ConstantQuantization(2, steepness=3.0)
    model = sequential(quantizer, layers.Flatten(), layers.Dense(5))
    attack = attacks.CubeAttack(0.2, nb_iter=2, nb_restarts=1)
    attack.run(model, X, verbose=0)
    quantizer.hard = True
    assert agreement(attack, model) == 1


def test_an_edited_source():
    source, model = network(), network()
    attack = attacks.TransferAttack(attacks.FastGradientMethod(0.2), source)
    y = model.predict(X, verbose=0).argmax(-1)
    before = attack.generate(model, X, y, verbose=0)
    other_order(source)
    after = attack.generate(model, X, y, verbose=0)
    assert (before != after).any()
    np.testing.assert_array_equal(
        after, attack.attack.generate(source, X, y, verbose=0)
    )
