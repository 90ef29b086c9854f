"""The transfer matrix: what is counted, by what name, and what is known."""

import json
import warnings

import keras
import numpy as np
import pytest

from conftest import linear_model
from conftest import small_cnn
from keras_qsn import attacks
from keras_qsn.attacks import BasicIterativeMethod
from keras_qsn.attacks import FastGradientMethod
from keras_qsn.evaluation import transfer_matrix
from keras_qsn.evaluation import wilson_interval
from keras_qsn.models import ensemble

ATTACKS = {
    "one step": FastGradientMethod(0.2),
    "many": BasicIterativeMethod(0.2, nb_iter=5),
}


@pytest.fixture(scope="module")
def images(digits):
    return digits.x_test[::40], digits.y_test[::40]


@pytest.fixture(scope="module")
def matrix(trained, images):
    models = {name: trained[name] for name in ("none", "soft", "hard")}
    both = {"both": ensemble([trained["none"], trained["soft"]])}
    return transfer_matrix(models, *images, ATTACKS, both, batch_size=50)


def predicted(model, x):
    return np.asarray(model(x)).argmax(-1)


def test_counts_what_the_target_had_right(matrix, trained, images):
    x, y = images
    names = ["none", "soft", "hard"]
    assert matrix.settings["targets"] == names
    assert matrix.settings["sources"] == [*names, "both"]
    source = ensemble([trained["none"], trained["soft"]])
    for attack, used in ATTACKS.items():
        shares = matrix.success(attack)
        assert shares.shape == (4, 3)
        for i, model in enumerate([*(trained[n] for n in names), source]):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", attacks.BlindAttackWarning)
                x_adv = used.generate(model, x, y)
            for j, target in enumerate(names):
                right = predicted(trained[target], x) == y
                wrong = predicted(trained[target], x_adv) != y
                wanted = (wrong & right).sum() / right.sum()
                assert shares[i, j] == pytest.approx(wanted)
        square = shares[:3]
        assert matrix.white_box(attack) == pytest.approx(np.trace(square) / 3)
        other = (square.sum() - np.trace(square)) / 6
        assert matrix.transferred(attack) == pytest.approx(other)


def test_as_text_json_and_data_frame(matrix, images):
    told = json.loads(json.dumps(matrix.to_json()))
    assert [row["attack"] for row in told["summary"]] == [*ATTACKS]
    assert len(told["cells"]) == 2 * 4 * 3
    cell = told["cells"][1]
    assert (cell["source"], cell["target"]) == ("none", "soft")
    share = matrix.success("one step")[0, 1]
    assert cell["success"] == pytest.approx(share)
    low, high = wilson_interval(share, cell["images"])
    assert (cell["low"], cell["high"]) == pytest.approx((low, high))
    # The hard quantizer hides its gradient from the attacks.
    frame = matrix.to_dataframe()
    blind = frame[frame.source == "hard"].blind
    assert (blind == matrix.blind["many"][2].sum()).all()
    assert frame.columns.tolist() == [*cell]
    text = repr(matrix)
    assert f"{100 * share:.1f} %" in text and "one step" in text
    widths = {len(row) for row in text.split("\n\n")[1].split("\n")[:-1]}
    assert len(widths) == 1
    page = matrix._repr_html_()
    assert page.count("<table>") == 2 and f"{100 * share:.1f} %" in page


def test_transfer_of_linear_models_is_known():
    """A step along one's own weights moves another by their inner product."""
    x = np.full((4, 2), 0.5, "float32")
    models = {
        "a": linear_model([1.0, 1.0], -1.1),
        "b": linear_model([1.0, 0.5], -0.8),
        "c": linear_model([-1.0, 1.0], -0.05),
    }
    y = np.zeros(4, "int64")
    found = transfer_matrix(models, x, y, [FastGradientMethod(0.1)])
    # All have a lead of 0.1 or less: eps times the sum of |w| is more.
    wanted = [[1, 1, 0], [1, 1, 0], [0, 0, 1]]
    np.testing.assert_array_equal(found.success("FastGradientMethod"), wanted)
    assert found.transferred("FastGradientMethod") == pytest.approx(1 / 3)


def test_a_target_with_nothing_right():
    x, y = np.full((2, 2), 0.5, "float32"), [1, 1]
    models = {
        "right": linear_model([1.0, 1.0]),
        "wrong": linear_model([-1.0, -1.0]),
    }
    found = transfer_matrix(models, x, y, [FastGradientMethod(0.1)])
    assert np.isnan(found.success("FastGradientMethod")[:, 1]).all()
    assert found.to_json()["cells"][1]["success"] is None
    assert "–" in repr(found)


def test_names_and_progress(images):
    x, y = images[0][:10], images[1][:10]
    pair = [small_cnn(), small_cnn()]
    plan = [FastGradientMethod(0.1), FastGradientMethod(0.2)]
    said = []
    found = transfer_matrix(
        *(pair, x, y, plan),
        batch_size=6,
        progress=lambda *args: said.append(args),
    )
    names = [model.name for model in pair]
    assert found.settings["targets"] == names
    assert [*found.became] == [
        "FastGradientMethod(eps=0.1)",
        "FastGradientMethod(eps=0.2)",
    ]
    first = f"FastGradientMethod(eps=0.1) on {names[0]}"
    assert said[:2] == [(first, 6, 10), (first, 10, 10)]
    assert len(said) == 2 * 2 * 2


def mlp():
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(64, activation="relu"),
            keras.layers.Dense(10),
        ]
    )


def test_momentum_and_views_and_sources_transfer_better(trained, digits):
    """Than as many plain steps: known since Dong et al. and Xie et al."""
    models = {"cnn": trained["none"]}
    for seed, make in enumerate((small_cnn, mlp), 1):
        keras.utils.set_random_seed(seed)
        model = make()
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.Adam(5e-3), loss)
        model.fit(digits.x_train, digits.y_train, epochs=3, verbose=0)
        models[f"{make.__name__} {seed}"] = model
    eps = 0.15
    strong = attacks.MomentumIterativeMethod(eps, nb_iter=20)
    for view in (
        attacks.InputDiversity(interpolation="bilinear"),
        attacks.TranslationInvariance(5),
    ):
        strong = attacks.ViewedAttack(strong, view)
    found = transfer_matrix(
        models,
        digits.x_test[:200],
        digits.y_test[:200],
        {"plain": BasicIterativeMethod(eps, nb_iter=20), "strong": strong},
        {"both": ensemble([*models.values()][:2])},
        verbose=0,
    )
    plain, better = map(found.success, ("plain", "strong"))
    assert found.transferred("strong") > found.transferred("plain") + 0.04
    # On the source itself, plain steps do it.
    assert found.white_box("plain") >= found.white_box("strong")
    # From a network to the other kind, and from two of them.
    assert better[0, 2] > plain[0, 2] + 0.08
    assert plain[3, 2] > plain[:2, 2].max() + 0.02
    assert better[3, 2] > plain[:2, 2].max() + 0.1


def test_refuses(images):
    x, y = images
    model, fgsm = small_cnn(), FastGradientMethod(0.1)
    pair = {"a": model, "b": small_cnn()}
    twin = keras.models.clone_model(model)
    twin.name = model.name
    elsewhere = attacks.TransferAttack(fgsm, model)
    of_four = small_cnn(num_classes=4)
    for models, plan, more, error, message in (
        ([model], [fgsm], None, ValueError, "at least 2 models"),
        ([model, twin], [fgsm], None, ValueError, "told by their names"),
        (model, [fgsm], None, TypeError, "must be a dictionary"),
        (pair, [], None, ValueError, "must hold an attack"),
        (pair, ["pgd"], None, TypeError, "no source of their own"),
        (pair, [elsewhere], None, TypeError, "no source of their own"),
        (pair, [fgsm, fgsm], None, ValueError, "in a list must differ"),
        (pair, [fgsm], {"a": twin}, ValueError, "a in both"),
        (pair, fgsm, None, TypeError, "a dictionary, {name: attack}, or"),
        ({1: model, "1": twin}, [fgsm], None, ValueError, "differ as text"),
        (pair, {1: fgsm, "1": fgsm}, None, ValueError, "differ as text"),
        (pair, [fgsm], {"c": of_four}, ValueError, "'b' of 10, 'c' of 4"),
    ):
        with pytest.raises(error, match=message):
            transfer_matrix(models, x, y, plan, more)
    with pytest.raises(ValueError, match="must hold the true classes"):
        transfer_matrix(pair, x, None, [fgsm])
    found = transfer_matrix(pair, x[:4], y[:4], [fgsm])
    with pytest.raises(ValueError, match="must be one of FastGradientMethod"):
        found.success("PGD")
