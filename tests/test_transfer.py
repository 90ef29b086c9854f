"""Transfer and substitutes: whose images, queries, closed form, errors."""

import gc
import json
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf

from conftest import linear_model
from conftest import small_cnn
from keras_qsn.attacks.scores.square import SquareAttack
from keras_qsn.attacks.transfer.substitute import substitute_mlp
from keras_qsn.attacks.transfer.substitute import train_substitute
from keras_qsn.attacks.transfer.transfer import TransferAttack
from keras_qsn.attacks.white_box.carlini_wagner import CarliniWagnerL2
from keras_qsn.attacks.white_box.deepfool import DeepFool
from keras_qsn.attacks.white_box.gradient import FastGradientMethod
from keras_qsn.attacks.white_box.gradient import ProjectedGradientDescent
from keras_qsn.attacks.white_box.saliency_map import SaliencyMapMethod
from keras_qsn.models import KerasModelWrapper

IN_A_BALL = [
    pytest.param(FastGradientMethod(0.2, norm=1), id="fgsm-1"),
    pytest.param(ProjectedGradientDescent(0.2, nb_iter=5, seed=3), id="pgd"),
    pytest.param(ProjectedGradientDescent(2, nb_iter=5, norm=2), id="pgd-2"),
    pytest.param(SquareAttack(0.2, nb_queries=20), id="square"),
]
MINIMAL = [
    pytest.param(
        CarliniWagnerL2(
            max_iterations=10,
            learning_rate=0.1,
            initial_const=10,
            binary_search_steps=1,
        ),
        id="cw",
    ),
    pytest.param(
        DeepFool(overshoot=1, max_iter=9, nb_candidate=3), id="deepfool"
    ),
    pytest.param(SaliencyMapMethod(gamma=0.05), id="jsma"),
]


@pytest.fixture
def images(digits):
    return digits.x_test[::20], digits.y_test[::20]


def predicted(model, x):
    return np.asarray(model(x)).argmax(-1)


@pytest.mark.parametrize("attack", IN_A_BALL)
def test_images_are_those_the_attack_finds_on_the_source(
    attack, trained, images
):
    x, y = images
    source, target = trained["none"], trained["soft"]
    result = TransferAttack(attack, source).run(target, x, y)
    np.testing.assert_array_equal(result.x_adv, attack.generate(source, x, y))
    judged = predicted(target, result.x_adv)
    np.testing.assert_array_equal(result.prediction, judged)
    np.testing.assert_array_equal(result.success, judged != y)
    assert (judged != predicted(source, result.x_adv)).any()


@pytest.mark.parametrize("attack", MINIMAL)
def test_without_a_ball_what_fails_on_the_target_is_unchanged(
    attack, trained, images
):
    x, y = images
    target = trained["soft"]
    result = TransferAttack(attack, trained["none"]).run(target, x, y)
    np.testing.assert_array_equal(result.success, result.prediction != y)
    failed = ~result.success
    np.testing.assert_array_equal(result.x_adv[failed], x[failed])
    on_source = attack.run(trained["none"], x, y)
    moved = (on_source.x_adv != x).any((1, 2, 3))
    clean = predicted(target, x) != y
    # There are some of each: both models fooled, and only the source.
    assert (result.success & moved & ~clean).any() and (failed & moved).any()
    both = result.success & on_source.success
    np.testing.assert_array_equal(result.x_adv[both], on_source.x_adv[both])


@pytest.mark.parametrize("attack", IN_A_BALL + MINIMAL)
def test_to_the_source_itself_it_is_the_plain_attack(attack, trained, images):
    x, y = images
    model = trained["none"]
    plain = attack.run(model, x, y)
    transferred = TransferAttack(attack, model).run(model, x, y, batch_size=50)
    for a, b in zip(plain, transferred):
        np.testing.assert_array_equal(a, b)


def test_breaks_a_model_that_hides_its_gradient(trained, images):
    x, y = images
    blind = keras.Sequential([keras.Input((28, 28, 1))])
    blind.add(keras.layers.Lambda(lambda t: tf.stop_gradient(t) + 0.0 * t))
    blind.add(trained["hard"])
    attack = ProjectedGradientDescent(eps=0.4, nb_iter=10)
    with pytest.warns(RuntimeWarning, match="hides its gradient"):
        own = attack.run(blind, x, y).success.mean()
    for name in ("none", "hard"):
        attack_from = TransferAttack(attack, trained[name])
        assert attack_from.run(blind, x, y).success.mean() > own + 0.2


def test_targeted_raises_the_rate_of_the_target(trained, images):
    x, y = images
    model, wanted = trained["soft"], (y + 1) % 10
    attack = TransferAttack(ProjectedGradientDescent(0.3), trained["none"])
    result = attack.run(model, x, y, y_target=wanted)
    np.testing.assert_array_equal(result.success, result.prediction == wanted)
    assert result.success.mean() > (predicted(model, x) == wanted).mean() + 0.1


def test_labels_left_out_are_the_predictions_of_the_target(images):
    x, _ = images
    source, target = small_cnn(), small_cnn()
    guess = predicted(target, x)
    assert (guess != predicted(source, x)).any()
    attack = TransferAttack(FastGradientMethod(), source)
    np.testing.assert_array_equal(
        attack.generate(target, x), attack.generate(target, x, guess)
    )


def test_sources_of_one_name_do_not_share_a_function(images):
    x, y = images
    target, first, second = (
        keras.models.clone_model(small_cnn()) for _ in range(3)
    )
    first.add(keras.layers.Softmax())
    first.name = second.name = "twin"
    attack = FastGradientMethod(0.1)
    found = []
    for source in (first, second, KerasModelWrapper(first, from_logits=True)):
        transfer = TransferAttack(attack, source)
        assert transfer.get_config()["source"] == "twin"
        found.append(transfer.generate(target, x, y))
        wanted = attack.generate(source, x, y)
        np.testing.assert_array_equal(found[-1], wanted)
    assert (found[0] != found[1]).any() and (found[0] != found[2]).any()
    # Nor does the plain attack on the same model.
    assert (attack.generate(target, x, y) != found[0]).any()


def test_attacks_that_differ_in_eps_and_seed_share_a_function(images):
    calls = []

    class Counting(FastGradientMethod):
        def _perturb(self, *args):
            calls.append(args)
            return super()._perturb(*args)

    source, target = small_cnn(), small_cnn()
    for eps, seed in ((0.1, 0), (0.2, 0), (0.2, 1)):
        attack = TransferAttack(Counting(eps, seed=seed), source)
        x_adv = attack.generate(target, *images)
        assert np.isclose(np.abs(x_adv - images[0]).max(), eps)
    assert len(calls) == 1
    attack = TransferAttack(Counting(norm=2), source)
    attack.generate(target, *images)
    assert len(calls) == 2


def test_a_source_trained_further_is_followed(images):
    x, y = images
    source, target, other = small_cnn(), small_cnn(), small_cnn()
    attack = TransferAttack(FastGradientMethod(), source)
    attack.generate(target, x, y)
    source.set_weights(other.get_weights())
    np.testing.assert_array_equal(
        attack.generate(target, x, y),
        FastGradientMethod().generate(other, x, y),
    )


@pytest.mark.parametrize("kept", ["source", "target"])
def test_either_model_can_be_freed(kept, images):
    models = {"source": small_cnn(), "target": small_cnn()}
    TransferAttack(FastGradientMethod(), models["source"]).generate(
        models["target"], *images
    )
    (gone,) = models.keys() - {kept}
    references = [
        weakref.ref(models[gone]),
        weakref.ref(models.pop(gone).weights[0].value),
    ]
    gc.collect()
    assert [reference() for reference in references] == [None, None]


def test_config_is_plain_and_rebuilds_the_attack(trained, images):
    inner = ProjectedGradientDescent(0.1, nb_iter=3, norm=2, seed=5)
    attack = TransferAttack(inner, trained["none"])
    assert (attack.eps, attack.norm, attack.seed) == (0.1, 2, 5)
    config = json.loads(json.dumps(attack.get_config()))
    assert config == {
        "attack": {
            "class_name": "ProjectedGradientDescent",
            "config": inner.get_config(),
        },
        "source": trained["none"].name,
    }
    again = TransferAttack.from_config(config, trained["none"])
    assert repr(again) == repr(attack) and "seed" in repr(again)
    np.testing.assert_array_equal(
        again.generate(trained["soft"], *images),
        attack.generate(trained["soft"], *images),
    )
    with pytest.raises(TypeError, match="'source'"):
        TransferAttack.from_config(config)


def test_pixel_range_of_the_attack(trained, images):
    x, y = images
    attack = FastGradientMethod(50, clip_max=255.0)
    transfer = TransferAttack(attack, trained["none"])
    x_adv = transfer.generate(small_cnn(), 255 * x, y)
    assert 1 < x_adv.max() <= 255 and x_adv.min() >= 0


def test_bad_attack_or_source(trained, images):
    fgsm, model = FastGradientMethod(), trained["none"]
    for attack in ("pgd", TransferAttack(fgsm, model)):
        with pytest.raises(TypeError, match="`attack` must .* Received:"):
            TransferAttack(attack, model)
    with pytest.raises(TypeError, match="must be a Keras model"):
        TransferAttack(fgsm, "model")
    flat = TransferAttack(fgsm, linear_model([1.0, 2.0]))
    with pytest.raises(ValueError, match=r"\(28, 28, 1\).* for shape \(2,\)"):
        flat.generate(model, *images)
    few = TransferAttack(fgsm, small_cnn(num_classes=4))
    with pytest.raises(ValueError, match="attacked, 10. .* source of 4 class"):
        few.generate(model, *images)


class TestSubstitute:
    def test_agrees_and_its_examples_transfer(self, trained, digits, images):
        x, y = images
        black_box, substitute = trained["none"], substitute_mlp(seed=1)
        training = train_substitute(
            black_box,
            digits.x_test[5::10],
            substitute,
            data_aug=4,
            epochs=5,
            verbose=0,
        )
        answers = predicted(black_box, x)
        assert (predicted(substitute, x) == answers).mean() > 0.7
        attack = TransferAttack(FastGradientMethod(0.3), substitute)
        noise = 0.3 * np.sign(np.random.default_rng(0).normal(size=x.shape))
        noisy = np.clip(x + noise, 0, 1).astype("float32")
        base = (predicted(black_box, noisy) != y).mean()
        assert attack.run(black_box, x, y).success.mean() > base + 0.25
        assert training.queries == 100 * 2**3
        assert training.history["images"] == [100, 200, 400, 800]
        assert training.history["agreement"][-1] > 0.9
        assert training.history["loss"][-1] < training.history["loss"][0] / 4

    @pytest.mark.parametrize("aug_batch_size", [512, 3])
    def test_queries_are_those_of_the_formula(self, aug_batch_size):
        """With a linear substitute that hardly learns: the gradient is w."""
        rng = np.random.default_rng(0)
        kernel = rng.normal(size=(6, 3)).astype("float32")
        substitute = keras.Sequential(
            [keras.Input((6,)), keras.layers.Dense(3, use_bias=False)]
        )
        substitute.set_weights([kernel])
        asked = []

        def black_box(x):
            asked.append(x)
            return (x[:, 0] > 0.5).astype(int) + (x[:, 1] > 0.5)

        x = rng.random((5, 6), "float32")
        training = train_substitute(
            black_box,
            x,
            substitute,
            epochs=1,
            lmbda=0.2,
            aug_batch_size=aug_batch_size,
            learning_rate=1e-9,
            verbose=0,
        )
        signs = [1, 1, 1, -1, -1]
        known = x
        np.testing.assert_array_equal(asked[0], x)
        for sign, new in zip(signs, asked[1:]):
            labels = (known[:, 0] > 0.5).astype(int) + (known[:, 1] > 0.5)
            wanted = known + sign * 0.2 * np.sign(kernel.T[labels])
            np.testing.assert_allclose(new, wanted.clip(0, 1), atol=1e-6)
            known = np.concatenate([known, new])
        assert training.queries == len(known) == 5 * 2**5
        assert len(asked) == 6

    def test_the_seed_alone_decides(self, trained, images):
        def weights(seed, global_seed):
            keras.utils.set_random_seed(global_seed)
            before = np.random.get_state()[1].tolist()
            substitute = substitute_mlp(seed=0)
            train_substitute(
                trained["none"],
                images[0],
                substitute,
                data_aug=2,
                epochs=2,
                batch_size=16,
                seed=seed,
                verbose=0,
            )
            assert np.random.get_state()[1].tolist() == before
            return np.concatenate([w.ravel() for w in substitute.get_weights()])

        first = weights(1, 0)
        np.testing.assert_array_equal(first, weights(1, 5))
        assert (first != weights(2, 0)).any()

    def test_black_box_and_substitute_in_every_form(self, trained, images):
        """A model, its classes alone; logits or a softmax at the end."""
        x, _ = images
        model = trained["none"]
        bare, ending = substitute_mlp(seed=0), substitute_mlp(seed=0)
        ending.add(keras.layers.Softmax())
        compiled = substitute_mlp(seed=0)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        compiled.compile(keras.optimizers.SGD(0.1), loss, metrics=["accuracy"])
        compiled_with = compiled.optimizer
        found = []
        for black_box, substitute in (
            (model, bare),
            (KerasModelWrapper(model), ending),
            (lambda x: predicted(model, x), compiled),
            (lambda x: predicted(model, x), KerasModelWrapper(bare)),
        ):
            training = train_substitute(
                black_box, x, substitute, data_aug=2, epochs=3, verbose=0
            )
            found.append(training.history["loss"])
        np.testing.assert_allclose(found[0], found[1], rtol=1e-3)
        assert compiled.optimizer is compiled_with
        assert not np.isclose(found[0][-1], found[2][-1])
        # Trained in place: the second training starts where the first ended.
        assert found[3][0] < found[0][0]

    def test_progress(self, trained, images, capsys):
        for verbose in (0, 1):
            train_substitute(
                trained["none"],
                images[0],
                substitute_mlp(),
                data_aug=1,
                epochs=3,
                verbose=verbose,
            )
            assert ("3/3" in capsys.readouterr().out) == bool(verbose)

    def test_mlp(self):
        model = substitute_mlp((4, 4, 3), 5, seed=1)
        assert [w.shape for w in model.weights[::2]] == [
            (48, 200),
            (200, 200),
            (200, 5),
        ]
        assert model(np.zeros((2, 4, 4, 3))).shape == (2, 5)
        again = substitute_mlp((4, 4, 3), 5, seed=1).get_weights()
        for a, b in zip(model.get_weights(), again):
            np.testing.assert_array_equal(a, b)
        with pytest.raises(ValueError, match="`num_classes` must be a whole"):
            substitute_mlp(num_classes=1)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"lmbda": 0}, "`lmbda` must be .* above 0. Received: lmbda=0"),
            ({"lmbda": np.nan}, "`lmbda` must be a finite number above 0"),
            ({"learning_rate": -1}, "`learning_rate` .* learning_rate=-1"),
            ({"data_aug": 0}, "`data_aug` must be .* Received: data_aug=0"),
            ({"epochs": 1.5}, "`epochs` must be a whole number of at least 1"),
            ({"aug_batch_size": 0}, "`aug_batch_size` must be a whole number"),
            ({"batch_size": 0}, "`batch_size` must be a whole number"),
            ({"clip_max": 0.5}, r"`x` must lie in \[0.0, 0.5\]"),
            (
                {"black_box": lambda x: [10] * len(x)},
                r"`black_box\(x\)` must hold whole numbers from 0 to 9",
            ),
            (
                {"black_box": lambda x: [1]},
                r"`black_box\(x\)` must have one label for each of the 50",
            ),
        ],
    )
    def test_bad_parameters(self, arguments, message, images):
        arguments = {"black_box": lambda x: [1] * len(x), **arguments}
        with pytest.raises(ValueError, match=message):
            train_substitute(
                x=images[0],
                substitute=substitute_mlp(),
                verbose=0,
                **arguments,
            )

    def test_no_black_box_or_substitute(self, images):
        with pytest.raises(TypeError, match="`black_box` must be a function"):
            train_substitute("model", images[0], substitute_mlp())
        with pytest.raises(TypeError, match="`model` must be a Keras model"):
            train_substitute(substitute_mlp(), images[0], "substitute")
