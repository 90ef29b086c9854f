"""Copying a model: what is asked, counted, kept, and what comes of it."""

import itertools

import keras
import numpy as np
import pytest

from keras_qsn import attacks
from keras_qsn.extraction import ActiveThief
from keras_qsn.extraction import CopyCat
from keras_qsn.extraction import ExtractionAttack
from keras_qsn.extraction import JacobianAugmentation
from keras_qsn.extraction import KnockoffNets
from keras_qsn.extraction.bandit import GradientBandit
from keras_qsn.extraction.bandit import Rewards
from keras_qsn.models import KerasModelWrapper
from keras_qsn.models import QueryError
from keras_qsn.models import QueryModel

SHAPE = (6, 6, 1)
X = np.random.default_rng(0).random((400, *SHAPE), "float32")
POOL, TEST = X[:300], X[300:]


def linear(seed=0, num_classes=3):
    """A linear classifier whose classes are about as frequent."""
    model = keras.Sequential(
        [
            keras.Input(SHAPE),
            keras.layers.Rescaling(1.0, -0.5),
            keras.layers.Flatten(),
            keras.layers.Dense(
                num_classes,
                kernel_initializer=keras.initializers.HeNormal(seed),
            ),
        ]
    )
    return model


VICTIM = linear(seed=0)
# Some way from each other, so that probabilities say something.
VICTIM.set_weights([3 * w for w in VICTIM.get_weights()])


class Service:
    """The victim, which counts what it is sent, and may fail."""

    def __init__(self, failures=()):
        self.failures = dict(failures)
        self.calls = 0
        self.images = []

    def __call__(self, x):
        self.calls += 1
        self.images.append(x.copy())
        scores = KerasModelWrapper(VICTIM).logits(x)
        failure = self.failures.get(self.calls)
        return failure(scores) if failure else scores

    @property
    def sent(self):
        return sum(map(len, self.images))


class Killed(BaseException):
    """What no code catches."""


def killed(scores):
    raise Killed


def down(scores):
    raise ConnectionError("down")


def one_is_nan(scores):
    scores[0] = np.nan
    return scores


def service_model(service, **kwargs):
    kwargs = {"batch_size": 32, **kwargs}
    return QueryModel(service, 3, SHAPE, **kwargs)


def steal(victim, budget=200, copy=None, folder=None, images=POOL, **kwargs):
    kwargs = {"epochs": 20, "learning_rate": 0.05, **kwargs}
    attack = KnockoffNets(budget=budget, **kwargs)
    copy = linear(seed=1) if copy is None else copy
    return attack.run(
        victim, copy, images, x_test=TEST, folder=folder, verbose=0
    )


def test_a_copy_of_a_linear_model():
    copy = linear(seed=1)
    before = (
        KerasModelWrapper(copy).predict(TEST)
        == KerasModelWrapper(VICTIM).predict(TEST)
    ).mean()
    result = steal(VICTIM, copy=copy)
    assert before < 0.6 < 0.9 < result.agreement
    assert result.queries == result.settings["asked"] == 200
    np.testing.assert_array_equal(
        result.copy, KerasModelWrapper(copy).predict(TEST)
    )
    assert result.curve == [(200, result.agreement)]
    assert result.victim_accuracy is None


def test_same_seed_same_copy():
    copies = [linear(seed=1) for _ in range(3)]
    for copy, seed in zip(copies, (0, 0, 1)):
        keras.utils.set_random_seed(seed + 5)
        steal(VICTIM, copy=copy, seed=seed, epochs=2)
    one, same, other = (copy.get_weights()[0] for copy in copies)
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()


@pytest.mark.parametrize("budget", [1, 32, 33])
def test_the_budget_is_spent_to_the_image(budget):
    service = Service()
    result = steal(service_model(service), budget, epochs=1)
    # Beside those measured on.
    assert result.queries == service.sent - len(TEST) == budget
    assert len(np.unique(np.concatenate(service.images), axis=0)) == (
        budget + len(TEST)
    )


def test_no_image_is_asked_twice_where_there_are_too_few():
    result = steal(VICTIM, 1000, epochs=1)
    assert result.queries == len(POOL)


@pytest.mark.parametrize("failure", [down, one_is_nan])
def test_images_sent_again_count(failure):
    service = Service({6: failure, 7: failure})
    result = steal(service_model(service), 100, epochs=1)
    assert result.queries == service.sent - len(TEST) == 100
    assert result.settings["asked"] < 100
    assert sum(result.settings["failures"].values()) == 2


def test_garbage_is_asked_for_again(tmp_path):
    """Of each kind, at any time: it counts, and is told."""
    rng = np.random.default_rng(0)
    garbage = itertools.cycle([down, one_is_nan, lambda scores: scores[1:]])
    service = Service()

    def answer(x):
        scores = service(x)
        return next(garbage)(scores) if rng.random() < 0.2 else scores

    victim = QueryModel(answer, 3, SHAPE, batch_size=8, attempts=9)
    result = steal(victim, 250, folder=tmp_path, epochs=1)
    assert result.queries == 250
    assert victim.queries == service.sent >= 250 + len(TEST)
    failed = result.settings["failures"]
    assert min(failed.values()) >= 1
    assert 150 <= result.settings["asked"] < 250


def test_what_is_paid_for_outlives_a_service(tmp_path):
    """Four calls to measure; then of four batches the third never comes."""
    service = Service(dict.fromkeys((7, 8, 9), one_is_nan))
    copy = linear(seed=1)
    start = copy.get_weights()
    # Its own budget allows for no image twice.
    victim = service_model(service, budget=120 + len(TEST))
    with pytest.raises(QueryError, match="in 3 attempts, for 1 of 32"):
        steal(victim, 120, copy, tmp_path)
    for weight, value in zip(copy.get_weights(), start):
        np.testing.assert_array_equal(weight, value)
    result = steal(victim, 120, copy, tmp_path)
    assert victim.queries == service.sent == 120 + len(TEST)
    assert result.queries == 120
    assert result.settings["asked"] == 117
    # Each image once, but for the one without an answer.
    sent = np.concatenate(service.images)
    count = np.unique(sent, axis=0, return_counts=True)[1]
    assert sorted(count)[-2:] == [1, 4]


def test_after_a_kill_nothing_is_paid_twice(tmp_path):
    """What was under way is lost, and counts."""
    service, copy = Service({7: killed}), linear(seed=1)
    victim = service_model(service)
    with pytest.raises(Killed):
        steal(victim, 200, copy, tmp_path)
    result = steal(victim, 200, copy, tmp_path)
    assert victim.queries == service.sent == 200 + len(TEST)
    assert result.queries == 200
    assert result.settings["asked"] == 200 - 32
    again = steal(victim, 200, other := linear(seed=1), tmp_path)
    assert service.sent == 200 + len(TEST)
    assert again.agreement == result.agreement
    for one, two in zip(copy.get_weights(), other.get_weights()):
        np.testing.assert_array_equal(one, two)


def test_a_run_that_goes_on_ends_as_one_that_was_not_stopped(tmp_path):
    """Between two batches nothing is under way."""

    def stop(name, done, total):
        if (name, done) == ("asking", 64):
            raise KeyboardInterrupt

    arguments = {"images": POOL, "x_test": TEST}
    attack = KnockoffNets(budget=150, epochs=3, rounds=2)
    service, copy = Service(), linear(seed=1)
    victim = service_model(service)
    with pytest.raises(KeyboardInterrupt):
        attack.run(victim, copy, **arguments, folder=tmp_path, progress=stop)
    found = attack.run(victim, copy, **arguments, folder=tmp_path, verbose=0)
    assert service.sent == 150 + len(TEST)
    unstopped = linear(seed=1)
    expected = attack.run(service_model(Service()), unstopped, **arguments,
                          verbose=0)  # fmt: skip
    assert found.curve == expected.curve
    assert [queries for queries, _ in found.curve] == [75, 150]
    for one, two in zip(copy.get_weights(), unstopped.get_weights()):
        np.testing.assert_array_equal(one, two)


def test_a_folder_of_another_attack_is_refused(tmp_path):
    steal(VICTIM, 50, folder=tmp_path, epochs=1)
    with pytest.raises(ValueError, match="differs in attack.config"):
        steal(VICTIM, 60, folder=tmp_path, epochs=1)
    with pytest.raises(ValueError, match="differs in copy"):
        steal(VICTIM, 50, folder=tmp_path, epochs=1, copy=linear(seed=7))


def test_repeats_average_answers_drawn_at_random():
    rng = np.random.default_rng(0)

    def noisy(x):
        scores = KerasModelWrapper(VICTIM).logits(x)
        return scores + rng.normal(size=scores.shape)

    def moved(repeats, answers):
        attack = KnockoffNets(
            budget=90, answers=answers, repeats=repeats, epochs=1
        )
        result = attack.run(
            QueryModel(noisy, 3, SHAPE),
            linear(seed=1),
            POOL,
            TEST,
            clean=VICTIM,
            verbose=0,
        )
        assert result.queries == 90
        assert result.settings["asked"] == 90 // repeats
        return result.l1

    assert moved(9, "soft") < 0.6 * moved(1, "soft")
    # Probabilities that are not the victim's but classes.
    assert moved(9, "hard") > 0


def test_hard_answers_are_one_hot_and_soft_ones_the_victims():
    asked = {}

    @keras.saving.register_keras_serializable("tests")
    class Looks(KnockoffNets):
        def _steal(self, thief):
            super()._steal(thief)
            asked[self.answers] = thief.x, thief.answers

    for answers in ("soft", "hard"):
        Looks(budget=20, answers=answers, epochs=1).run(
            VICTIM, linear(1), POOL, TEST, verbose=0
        )
    np.testing.assert_array_equal(asked["soft"][0], asked["hard"][0])
    wrapper = KerasModelWrapper(VICTIM)
    x, soft = asked["soft"]
    np.testing.assert_allclose(soft, wrapper.get_probs(x), atol=1e-6)
    np.testing.assert_array_equal(
        asked["hard"][1], np.eye(3)[wrapper.predict(x)]
    )


def test_accuracies_and_what_fools_the_victim_too():
    y = KerasModelWrapper(linear(seed=2)).predict(TEST)
    adversary = attacks.FastGradientMethod(eps=0.3)
    result = KnockoffNets(budget=200, epochs=20, learning_rate=0.05).run(
        VICTIM,
        copy := linear(seed=1),
        POOL,
        TEST,
        y,
        adversary=adversary,
        verbose=0,
    )
    victim = KerasModelWrapper(VICTIM)
    assert result.victim_accuracy == (victim.predict(TEST) == y).mean()
    assert result.copy_accuracy == (result.copy == y).mean()
    x_adv = adversary.generate(copy, TEST, result.victim)
    changed = (victim.predict(x_adv) != result.victim).mean()
    assert result.fooled["victim"] == pytest.approx(changed)
    assert result.fooled["victim"] > 0.8
    assert result.fooled["images"] == len(TEST)


@pytest.mark.parametrize(
    "attack",
    [
        ActiveThief(70, strategy="k-center"),
        CopyCat(70),
        JacobianAugmentation(70, initial=20),
        KnockoffNets(70, "soft", "adaptive", "loss", seed=3),
    ],
)
def test_configs(attack):
    again = type(attack).from_config(attack.get_config())
    assert again.get_config() == attack.get_config()
    assert repr(attack) == repr(again)
    assert "budget=70" in repr(attack)


@pytest.mark.parametrize("strategy", ["uncertainty", "k-center"])
def test_active_thief_asks_what_its_copy_knows_least(strategy):
    asked = []

    @keras.saving.register_keras_serializable("tests")
    class Looks(ActiveThief):
        def _propose(self, thief, count):
            p = thief.copy.get_probs(thief.images).numpy()
            x = super()._propose(thief, count)
            rows = [
                np.flatnonzero((POOL == one).all((1, 2, 3)))[0] for one in x
            ]
            asked.append((p, rows))
            return x

    attack = Looks(40, "soft", strategy, rounds=2, epochs=3)
    service = Service()
    attack.run(service_model(service), linear(1), POOL, TEST, verbose=0)
    (_, first), (p, second) = asked
    assert len({*first, *second}) == 40
    others = np.setdiff1d(np.arange(len(POOL)), [*first, *second])
    if strategy == "uncertainty":
        entropy = -(p * np.log(p)).sum(-1)
        assert entropy[second].min() >= entropy[others].max() - 1e-6
        return
    # Each is farther from all before it than any left is from all taken.
    taken = [*first]
    left = _distances(p, others, [*first, *second]).max()
    for row in second:
        assert _distances(p, [row], taken)[0] >= left - 1e-6
        taken.append(row)


def _distances(p, rows, centers):
    apart = p[rows][:, None] - p[centers][None]
    return np.sqrt(np.square(apart).sum(-1)).min(1)


def test_jacobian_augmentation_steps_along_the_copys_gradient():
    """The copy is linear: the step is the sign of its class's weights."""
    service, copy = Service(), linear(seed=1)
    attack = JacobianAugmentation(35, "hard", 10, epochs=1)
    result = attack.run(
        service_model(service), copy, POOL, TEST[:32], verbose=0
    )
    assert [queries for queries, _ in result.curve] == [10, 20, 35]
    *_, first, second, third = service.images
    assert list(map(len, (first, second, third))) == [10, 10, 15]
    kernel = copy.get_weights()[0].reshape(*SHAPE, 3)
    classes = KerasModelWrapper(VICTIM).predict(first)
    moved = first + 0.1 * np.sign(np.moveaxis(kernel, -1, 0)[classes])
    # Taught further since, the signs of few weights have changed.
    same = np.isclose(second, np.clip(moved, 0, 1), atol=1e-6)
    assert same.mean() > 0.9
    assert np.abs(third - np.concatenate([first, second])[:, None].reshape(
        20, 1, *SHAPE)).max((2, 3, 4)).min(0).max() <= 0.1 + 1e-6  # fmt: skip


def test_the_bandit_prefers_what_pays():
    bandit = GradientBandit(2)
    bandit.learn([0], [1.0])
    np.testing.assert_allclose(bandit.probabilities, [0.5, 0.5])
    # The mean is then 0.5: of action 1, 0.5 below it.
    bandit.learn([1], [0.0])
    gain = -0.5
    expected = np.exp([-gain / 2, gain / 2])
    np.testing.assert_allclose(bandit.probabilities, expected / expected.sum())
    rng = np.random.default_rng(0)
    for _ in range(200):
        action = rng.choice(2, p=bandit.probabilities)
        bandit.learn([action], [action])
    assert bandit.probabilities[1] > 0.9


def test_rewards():
    answers = np.array([[0.6, 0.3, 0.1], [0.2, 0.2, 0.6]])
    copied = np.full((2, 3), 1 / 3)
    np.testing.assert_allclose(
        Rewards("certainty")(answers, copied), [0.3, 0.4]
    )
    np.testing.assert_allclose(
        Rewards("diversity")(answers, copied), [0.25, 0.25]
    )
    np.testing.assert_allclose(Rewards("loss")(answers, copied), np.log(3))
    of_all = Rewards("all")(answers, copied)
    np.testing.assert_allclose(of_all, [-1 / 3, 1 / 3], atol=1e-3)


def test_adaptive_sampling_asks_about_the_classes_that_pay():
    """Images of one class are noise the victim is sure of, by its scores."""
    labels = np.arange(len(POOL)) % 2
    images = np.where(labels[:, None, None, None], POOL, 0.5).astype("float32")
    # So that no image is there twice.
    images[labels == 0] += 1e-3 * POOL[labels == 0]
    service = Service()
    attack = KnockoffNets(
        120, "soft", "adaptive", "certainty", epochs=1, batch_size=8
    )
    result = attack.run(
        service_model(service), linear(1), (images, labels), TEST, verbose=0
    )
    assert result.queries == service.sent - len(TEST) == 120
    asked = np.concatenate(service.images[4:])
    assert len(np.unique(asked, axis=0)) == 120
    bright = asked.std((1, 2, 3)) > 0.1
    assert bright.mean() > 0.7
    with pytest.raises(ValueError, match="told the classes of the images"):
        attack.run(VICTIM, linear(1), images, TEST, verbose=0)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"budget": 0}, "`budget` must be a whole number of at least 1"),
        ({"budget": 1.5}, "`budget` must be a whole number"),
        ({"answers": "both"}, "`answers` must be one of soft, hard"),
        ({"budget": 3, "rounds": 4}, "must allow for one image in each"),
        ({"budget": 3, "repeats": 4}, "must allow for one image in each"),
        ({"epochs": 0}, "`epochs` must be"),
        ({"learning_rate": 0}, "`learning_rate` must be"),
        ({"clip_min": 1}, "`clip_min` must be below"),
        ({"seed": -1}, "`seed` must be"),
        ({"sampling": "best"}, "`sampling` must be one of random, adaptive"),
        ({"reward": "most"}, "`reward` must be one of certainty"),
        ({"sampling": "adaptive", "rounds": 2}, "has no rounds"),
    ],
)
def test_wrong_arguments(arguments, says):
    with pytest.raises(ValueError, match=says):
        KnockoffNets(**arguments)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: CopyCat(answers="soft"), "uses classes alone"),
        (lambda: ActiveThief(strategy="best"), "`strategy` must be one of"),
        (lambda: JacobianAugmentation(budget=100), "no more images than"),
        (lambda: JacobianAugmentation(rounds=2), "follow from `budget`"),
        (lambda: JacobianAugmentation(lmbda=0), "`lmbda` must be"),
    ],
)
def test_wrong_arguments_of_each(make, says):
    with pytest.raises(ValueError, match=says):
        make()


@pytest.mark.parametrize(
    ("changed", "error", "says"),
    [
        ({"victim": 3}, TypeError, "must be a Keras model"),
        ({"copy": linear(num_classes=4)}, ValueError, "`num_classes` of the"),
        ({"copy": VICTIM}, ValueError, "another model than `victim`"),
        ({"images": None}, ValueError, "must be given `images`"),
        ({"images": POOL[:, :5]}, ValueError, "expects images of shape"),
        ({"images": POOL + 1}, ValueError, "must lie in"),
        ({"images": POOL * np.nan}, ValueError, "must be finite"),
        ({"images": (POOL, [1])}, ValueError, "one label for each"),
        ({"images": (POOL, ["a"] * 300)}, ValueError, "numbers of classes"),
        ({"x_test": None}, ValueError, "must hold images to measure"),
        ({"y_test": [0]}, ValueError, "one label for each"),
        ({"adversary": "PGD"}, TypeError, "must be an attack of"),
        (
            {"victim": service_model(Service(), answers="classes")},
            ValueError,
            "a victim of classes alone",
        ),
        (
            {"victim": service_model(Service(), budget=149)},
            ValueError,
            "own budget must allow for the attack's 50 images and the 100",
        ),
    ],
)
def test_wrong_input_is_refused_before_anything_is_sent(changed, error, says):
    arguments = {"victim": VICTIM, "copy": linear(1), "images": POOL}
    arguments = {**arguments, "x_test": TEST, "verbose": 0, **changed}
    with pytest.raises(error, match=says):
        KnockoffNets(budget=50).run(**arguments)
    asked = getattr(arguments["victim"], "queries", 0)
    assert asked == 0


def test_answers_that_are_never_numbers_are_reported():
    victim = QueryModel(lambda x: np.full((len(x), 3), np.nan), 3, SHAPE)
    with pytest.raises(Exception, match="not finite"):
        steal(victim, 20)


def test_an_attack_must_propose():
    with pytest.raises(TypeError, match="does not implement `_propose`"):
        ExtractionAttack(10).run(VICTIM, linear(1), POOL, TEST, verbose=0)
