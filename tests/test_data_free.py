"""Copying without images: what an estimate costs, and where it leads."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_qsn.defenses import NoisyAnswers
from keras_qsn.defenses import with_defended_answers
from keras_qsn.extraction import DFME
from keras_qsn.extraction import MAZE
from keras_qsn.extraction.dfme import logits_apart
from keras_qsn.extraction.generator import Generator
from keras_qsn.extraction.maze import divergence
from keras_qsn.models import KerasModelWrapper
from test_extraction import SHAPE
from test_extraction import TEST
from test_extraction import VICTIM
from test_extraction import Killed
from test_extraction import Service
from test_extraction import down
from test_extraction import killed
from test_extraction import linear
from test_extraction import service_model

ATTACKS = (DFME, MAZE)
SMALL = {
    "batch_size": 8,
    "width": 4,
    "latent_dim": 8,
    "directions": 2,
    "rounds": 1,
    "learning_rate": 0.02,
}


def steal(attack, victim=VICTIM, copy=None, folder=None, **kwargs):
    copy = linear(seed=1) if copy is None else copy
    attack = attack(**{**SMALL, **kwargs})
    return attack.run(victim, copy, x_test=TEST, folder=folder, verbose=0)


def probabilities(seed):
    scores = np.random.default_rng(seed).normal(size=(20, 5))
    return tf.nn.softmax(tf.constant(3 * scores, "float32"))


class TestLosses:
    def test_logits_are_found_in_probabilities(self):
        scores = np.random.default_rng(0).normal(size=(9, 4)).astype("float32")
        moved = scores + np.float32([[1.0, 0.0, -0.5, 0.25]])
        answers, log_p = tf.nn.softmax(scores), tf.nn.log_softmax(moved)
        # The shift, less its mean of 3 / 16.
        expected = np.abs(np.array([1.0, 0.0, -0.5, 0.25]) - 0.1875).mean()
        np.testing.assert_allclose(
            logits_apart(answers, log_p), [expected] * 9, rtol=1e-4
        )

    def test_divergence(self):
        y, p = probabilities(0), probabilities(1)
        expected = keras.losses.KLDivergence(reduction=None)(y, p)
        np.testing.assert_allclose(
            divergence(y, tf.math.log(p)), expected, rtol=1e-4
        )

    @pytest.mark.parametrize("loss", [logits_apart, divergence])
    def test_of_the_same_it_is_nothing(self, loss):
        y = probabilities(0)
        np.testing.assert_allclose(loss(y, tf.math.log(y)), 0, atol=1e-5)
        hard = tf.one_hot([0, 2], 5)
        assert np.isfinite(loss(hard, tf.math.log(y[:2]))).all()


class Asked:
    """A thief who asks a model, and counts."""

    def __init__(self, copy, victim):
        self.copy = KerasModelWrapper(copy)
        self.left = 10**9
        self._victim = KerasModelWrapper(victim)

    def ask(self, x, keep):
        self.left -= len(x)
        return x, np.array(self._victim.get_probs(x))


class TestGenerator:
    def made(self, seed=0, shape=(7, 9, 2), limits=(0.0, 1.0)):
        rng = np.random.default_rng(seed)
        return Generator(shape, 5, 4, 0.01, limits, rng)

    def test_images_of_any_size_and_range(self):
        generator = self.made(limits=(-2.0, 3.0))
        z = generator.draw(16)
        x = generator.images(generator.before_tanh(z))
        assert x.shape == (16, 7, 9, 2) and x.dtype == "float32"
        assert -2 <= x.min() < -1 and 2 < x.max() <= 3
        again = self.made(limits=(-2.0, 3.0))
        np.testing.assert_array_equal(z, again.draw(16))
        np.testing.assert_array_equal(x, again.images(again.before_tanh(z)))

    def test_goes_against_a_gradient_along_unit_vectors(self):
        generator = self.made()
        z, u = generator.draw(32), generator.directions(32, 4)
        np.testing.assert_allclose(
            (u * u).sum((2, 3, 4)), np.ones((32, 4)), rtol=1e-5
        )
        along = u[:, 0]
        before = (generator.before_tanh(z) * along).sum()
        for _ in range(10):
            generator.follow(z, along)
        assert (generator.before_tanh(z) * along).sum() < before - 1

    @pytest.mark.parametrize("attack", ATTACKS)
    def test_an_estimate_is_near_the_gradient(self, attack, monkeypatch):
        """Of hundreds of directions in 36 dimensions."""
        followed = {}
        monkeypatch.setattr(
            Generator,
            "follow",
            lambda self, z, g: followed.update(z=z, gradient=g),
        )
        rng = np.random.default_rng(0)
        generator = Generator(SHAPE, 5, 4, 0.01, (0.0, 1.0), rng)
        copy = linear(seed=1)
        thief = Asked(copy, VICTIM)
        attack = attack(**{**SMALL, "directions": 400, "batch_size": 4})
        x, answers = attack._challenge(thief, generator)
        assert 10**9 - thief.left == 4 * 401
        made = tf.constant(generator.before_tanh(followed["z"]))
        np.testing.assert_allclose(x, generator.images(made), atol=1e-6)
        np.testing.assert_allclose(
            answers, KerasModelWrapper(VICTIM).get_probs(x), atol=1e-6
        )
        with tf.GradientTape() as tape:
            tape.watch(made)
            images = (tf.tanh(made) + 1) / 2
            loss = attack._loss(
                tf.nn.softmax(VICTIM(images)),
                tf.nn.log_softmax(copy(images)),
            )
            mean = -tf.reduce_mean(loss)
        expected = np.ravel(tape.gradient(mean, made))
        found = np.ravel(followed["gradient"])
        norms = np.linalg.norm(found), np.linalg.norm(expected)
        assert found @ expected / np.prod(norms) > 0.9
        assert norms[0] / norms[1] == pytest.approx(1, rel=0.2)

    def test_learns_where_copy_and_victim_differ(self):
        attack = DFME(**{**SMALL, "directions": 20, "batch_size": 16})
        rng = np.random.default_rng(0)
        generator = Generator(SHAPE, 5, 4, 0.02, (0.0, 1.0), rng)
        thief = Asked(linear(seed=1), VICTIM)

        def differ():
            x = generator.images(generator.before_tanh(generator.draw(200)))
            return attack._losses(thief.copy, *thief.ask(x, False)).mean()

        before = differ()
        for _ in range(30):
            attack._challenge(thief, generator)
        assert differ() > 1.2 * before


@pytest.mark.parametrize(("attack", "least"), [(DFME, 0.7), (MAZE, 0.85)])
def test_a_copy_of_a_linear_model(attack, least):
    before = (
        KerasModelWrapper(linear(seed=1)).predict(TEST)
        == KerasModelWrapper(VICTIM).predict(TEST)
    ).mean()
    result = steal(attack, budget=3000, rounds=3, learning_rate=0.1)
    assert before < 0.6 < least < result.agreement
    queries = [queries for queries, _ in result.curve]
    assert len(queries) == 3 and queries[-1] == 3000
    assert result.settings["asked"] == 3000


def test_of_classes_alone():
    result = steal(MAZE, budget=3000, answers="hard", learning_rate=0.1)
    assert result.agreement > 0.7


@pytest.mark.parametrize(
    ("attack", "budget"), [(DFME, 23), (DFME, 64), (MAZE, 157)]
)
def test_the_budget_is_spent_to_the_image(attack, budget):
    service = Service()
    result = steal(attack, service_model(service), budget=budget)
    assert result.queries == service.sent - len(TEST) == budget


def test_images_sent_again_count():
    service = Service({6: down, 8: down})
    result = steal(MAZE, service_model(service), budget=100)
    assert result.queries == service.sent - len(TEST) <= 100
    assert result.settings["asked"] < result.queries


def test_repeats_of_a_noisy_victim():
    victim = with_defended_answers(VICTIM, NoisyAnswers(0.05))
    result = steal(DFME, victim, budget=203, repeats=3)
    assert result.queries == 201
    assert result.settings["asked"] == 67


@pytest.mark.parametrize("attack", ATTACKS)
def test_same_seed_same_copy(attack):
    copies = [linear(seed=1) for _ in range(3)]
    for copy, seed in zip(copies, (0, 0, 1)):
        keras.utils.set_random_seed(seed + 5)
        steal(attack, copy=copy, seed=seed, budget=150)
    one, same, other = (copy.get_weights()[0] for copy in copies)
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()


def test_goes_on_after_a_kill(tmp_path):
    service, copy = Service({9: killed}), linear(seed=1)
    victim = service_model(service)
    with pytest.raises(Killed):
        steal(MAZE, victim, copy, tmp_path, budget=200)
    start = linear(seed=1).get_weights()[0]
    np.testing.assert_array_equal(copy.get_weights()[0], start)
    result = steal(MAZE, victim, copy, tmp_path, budget=200)
    assert result.queries == service.sent - len(TEST) == 200
    sent = service.sent
    other = linear(seed=1)
    steal(MAZE, victim, other, tmp_path, budget=200)
    assert service.sent == sent
    np.testing.assert_array_equal(copy.get_weights()[0], other.get_weights()[0])


def test_ends_as_a_run_that_was_not_stopped(tmp_path):
    def stop(name, done, total):
        if done >= 60:
            raise KeyboardInterrupt

    arguments = {"x_test": TEST, "verbose": 0}
    attack = DFME(**{**SMALL, "budget": 150})
    copies = linear(seed=1), linear(seed=1)
    with pytest.raises(KeyboardInterrupt):
        attack.run(
            VICTIM, copies[0], folder=tmp_path, progress=stop, **arguments
        )
    found = attack.run(VICTIM, copies[0], folder=tmp_path, **arguments)
    expected = attack.run(VICTIM, copies[1], **arguments)
    assert found.curve == expected.curve
    np.testing.assert_array_equal(*(copy.get_weights()[0] for copy in copies))


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"directions": 0}, "`directions` must be"),
        ({"step": 0}, "`step` must be"),
        ({"copy_steps": 0}, "`copy_steps` must be"),
        ({"batch_size": 1}, "`batch_size` must be a whole number of at"),
        ({"generator_learning_rate": -1}, "`generator_learning_rate`"),
        ({"width": 0.5}, "`width` must be"),
    ],
)
def test_wrong_arguments(attack, arguments, says):
    with pytest.raises(ValueError, match=says):
        attack(**arguments)


@pytest.mark.parametrize("attack", ATTACKS)
def test_wrong_input(attack):
    flat = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    copy = keras.models.clone_model(flat)
    x = np.zeros((2, 4), "float32")
    with pytest.raises(ValueError, match="must take images of one size"):
        attack(**SMALL).run(flat, copy, x_test=x, verbose=0)
    with pytest.raises(ValueError, match="makes its own images"):
        attack(**SMALL).run(VICTIM, linear(1), TEST, TEST, verbose=0)


@pytest.mark.parametrize("attack", ATTACKS)
def test_configs(attack):
    made = attack(budget=70, directions=3, seed=2)
    again = attack.from_config(made.get_config())
    assert again.get_config() == made.get_config()
    assert again.directions == 3


def test_experience_is_replayed():
    copies = linear(seed=1), linear(seed=1)
    for copy, steps in zip(copies, (0, 5)):
        result = steal(MAZE, copy=copy, budget=480, replay_steps=steps)
        assert result.queries == 480
    assert (copies[0].get_weights()[0] != copies[1].get_weights()[0]).any()
