"""Plans follow from facts: every attack of every plan runs on every model."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_qsn import attacks
from keras_qsn.classifier.wrapper import KerasModelWrapper
from keras_qsn.evaluation import plans
from keras_qsn.evaluation.facts import ModelFacts
from keras_qsn.evaluation.threat_model import ThreatModel
from keras_qsn.layers import ConstantQuantization

EPS = 0.3
IMAGE = (6, 6, 1)
# The attacks as they are, with less of everything.
LITTLE = {
    "nb_iter": 2,
    "max_iter": 2,
    "nb_restarts": 1,
    "nb_queries": 3,
    "nb_polish": 1,
    "num_iterations": 1,
    "initial_num_evals": 4,
    "max_num_evals": 4,
    "spsa_samples": 2,
}


@keras.saving.register_keras_serializable("test_plans")
class Rounded(keras.layers.Layer):
    """Passes no gradient on."""

    def call(self, inputs):
        return tf.stop_gradient(tf.round(4 * inputs) / 4)


@keras.saving.register_keras_serializable("test_plans")
class Noise(keras.layers.Layer):
    def call(self, inputs):
        return inputs + tf.random.normal(tf.shape(inputs), stddev=0.1)


def net(*first, shape=IMAGE, classes=10, activation=None):
    middle = [keras.layers.Conv2D(3, 3), keras.layers.Flatten()]
    if len(shape) == 2:
        middle = [keras.layers.GlobalAveragePooling1D()]
    if len(shape) == 1:
        middle = [keras.layers.Dense(4, "relu")]
    if None in shape:
        middle[1] = keras.layers.GlobalAveragePooling2D()
    head = keras.layers.Dense(classes, activation)
    return keras.Sequential([keras.Input(shape), *first, *middle, head])


MODELS = {
    "ten classes": lambda: net(),
    "two classes": lambda: net(classes=2),
    "three classes": lambda: net(classes=3),
    "one sigmoid": lambda: net(classes=1, activation="sigmoid"),
    "a table": lambda: net(shape=(5,), classes=4),
    "a sequence": lambda: net(shape=(7, 2), classes=3),
    "any size": lambda: net(shape=(None, None, 3)),
    "quantized": lambda: net(ConstantQuantization(2, hard=True)),
    "a quantized table": lambda: net(
        ConstantQuantization(3), shape=(5,), classes=2
    ),
    "quantized behind a convolution": lambda: net(
        keras.layers.Conv2D(2, 3), ConstantQuantization(2)
    ),
    "no gradient": lambda: net(Rounded()),
    "a table without a gradient": lambda: net(Rounded(), shape=(5,)),
    "no gradient before the quantizer": lambda: net(
        Rounded(), ConstantQuantization(2)
    ),
    "random": lambda: net(Noise()),
}
# Where the attacks of the other norm are others.
IN_L2 = ["two classes", "a table", "quantized", "a table without a gradient"]
SPARSE = [(name, norm) for name in IN_L2 for norm in (1, 0)]


def images_of(model):
    shape = [n or 6 for n in model.input_shape[1:]]
    rng = np.random.default_rng(0)
    return rng.uniform(size=(2, *shape)).astype("float32")


def facts_of(model, threat):
    x = images_of(model)
    return ModelFacts.of(KerasModelWrapper(model), x.shape[1:], threat)


def little(attack):
    """An attack of the same kind that takes no time."""
    if isinstance(attack, attacks.TransferAttack):
        return attacks.TransferAttack(little(attack.attack), attack.source)
    if isinstance(attack, attacks.BPDA):
        return attacks.BPDA(little(attack.attack), attack.steepness)
    config = attack.get_config()
    return attack.from_config(
        {k: LITTLE.get(k, value) for k, value in config.items()}
    )


# Blind attacks say so.
@pytest.mark.filterwarnings("ignore::keras_qsn.attacks.BlindAttackWarning")
@pytest.mark.parametrize(
    ("name", "norm"),
    [(n, np.inf) for n in MODELS] + [(n, 2) for n in IN_L2] + SPARSE,
)
def test_no_attack_of_any_plan_fails(name, norm):
    model = MODELS[name]()
    x = images_of(model)
    threat = ThreatModel(1.0 if norm == 0 else EPS, norm)
    facts = facts_of(model, threat)
    wrapper = KerasModelWrapper(model)
    y = wrapper.predict(x)
    # Of each kind one: steepness and effort change nothing in the code.
    different = {
        (type(step.attack).__name__, step.name.split(",")[0]): step.attack
        for plan in plans.NAMES
        for step in plans.named(plan, threat, facts, {"itself": model})
    }
    for attack in different.values():
        result = little(attack).run(wrapper, x, y, verbose=0)
        assert result.x_adv.shape == x.shape
        assert attack.threat in ("white-box", "adaptive", "transfer", "queries")


class TestFacts:
    def test_are_those_of_the_model(self):
        found = {
            name: facts_of(make(), ThreatModel(EPS, np.inf))
            for name, make in MODELS.items()
        }
        assert found["ten classes"] == ModelFacts(10, IMAGE)
        assert found["one sigmoid"].num_classes == 2
        assert found["a table"].shape == (5,)
        assert found["any size"].shape == (6, 6, 3)
        assert found["quantized"].quantized and found["quantized"].opened
        behind = found["quantized behind a convolution"]
        assert behind.quantized and not behind.opened
        assert found["random"].random
        assert found["no gradient"].gradient_cut.startswith("StopGradient")
        assert not found["random"].gradient_cut
        assert not found["no gradient"].random


class TestNamedPlans:
    def names(self, plan="full", norm=np.inf, **facts):
        facts = ModelFacts(**{"num_classes": 10, "shape": IMAGE, **facts})
        steps = plans.named(plan, ThreatModel(EPS, norm), facts, {})
        return [step.name for step in steps]

    def test_know_their_attackers(self):
        inside = ThreatModel(EPS, np.inf)
        quantized = ModelFacts(10, IMAGE, quantized=True, opened=True)
        for plan in plans.NAMES:
            steps = plans.named(plan, inside, quantized, {"twin": net()})
            kinds = [step.threat for step in steps]
            assert set(kinds) == {
                "white-box",
                "transfer",
                "adaptive",
                "queries",
            }
            # What comes later only counts if it beats what came before.
            assert kinds == sorted(kinds, key=list(dict.fromkeys(kinds)).index)
            assert kinds[0] == "white-box"
            for step in steps:
                assert step.attack.eps in (EPS, None)
                json.dumps(step.get_config())
            plain = plans.named(plan, inside, ModelFacts(10, IMAGE), {})
            assert {s.threat for s in plain} == {"white-box", "queries"}

    def test_radius_norm_and_range_reach_every_attack(self):
        inside = ThreatModel(90.0, 2, 0.0, 255.0, seed=4)
        quantized = ModelFacts(10, IMAGE, quantized=True, opened=True)
        for plan in plans.NAMES:
            for step in plans.named(plan, inside, quantized, {"a": net()}):
                assert step.attack.norm == 2
                assert step.attack.clip_max == 255
                if step.attack.eps is not None:
                    assert step.attack.eps == 90
                    assert step.attack.seed == 4 or "seed" not in (
                        step.attack.get_config()
                    )

    def test_two_classes_have_no_third_logit(self):
        assert "APGD-DLR-20" in self.names("quick", num_classes=3)
        assert "APGD-margin-20" in self.names("quick", num_classes=2)
        assert "APGD-margin" in self.names("standard", num_classes=2)

    def test_squares_need_images(self):
        assert "Square-5000" in self.names()
        assert {"APGD-T", "SPSA-50"} < set(self.names(shape=(5,)))
        assert self.names("quick", 2, shape=(7, 2))[-1] == "HopSkipJump-2"

    def test_what_cannot_be_opened_is_gone_around(self):
        for norm, needs in ((np.inf, "cube"), (2, "level flips")):
            opened = self.names(norm=norm, quantized=True, opened=True)
            closed = self.names(norm=norm, quantized=True)
            assert needs in opened and needs not in closed
            assert "BPDA" in closed

    def test_where_there_is_no_gradient_queries_are_more(self):
        names = self.names("quick", gradient_cut="Round")
        assert names == ["FGSM", "Square-1000", "HopSkipJump-10"]
        cut = {"quantized": True, "opened": True, "gradient_cut": "Round"}
        assert self.names("quick", **cut) == ["FGSM", "cube", *names[1:]]

    def test_own_attacks_say_who_they_are(self):
        own = [
            attacks.FastGradientMethod(EPS),
            attacks.SquareAttack(EPS),
            attacks.CubeAttack(EPS),
            attacks.TransferAttack(attacks.FastGradientMethod(EPS), net()),
        ]
        steps = plans.given(own, ThreatModel(EPS, np.inf))
        assert [step.threat for step in steps] == [
            "white-box",
            "queries",
            "adaptive",
            "transfer",
        ]
        assert [step.name for step in steps] == [
            type(attack).__name__ for attack in own
        ]

    def test_own_attacks_of_one_class_are_told_apart(self):
        descents = [
            attacks.ProjectedGradientDescent(EPS, nb_iter=n) for n in (5, 9)
        ]
        own = [descents[0], *map(attacks.BPDA, descents), descents[1]]
        first, *bpda, last = plans.given(own, ThreatModel(EPS, np.inf))
        assert first.name == "ProjectedGradientDescent(nb_iter=5)"
        assert last.name == "ProjectedGradientDescent(nb_iter=9)"
        for step, attack in zip(bpda, descents):
            assert step.name == f"BPDA(attack={attack!r})"
