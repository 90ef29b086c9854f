"""The checks of masked gradients: each can pass, and each can fail."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from conftest import linear_model
from conftest import small_cnn
from keras_qsn import attacks
from keras_qsn import defenses
from keras_qsn import report
from keras_qsn.classifier.structure import structure_of
from keras_qsn.evaluation import evaluate_robustness
from keras_qsn.evaluation.checks import active
from keras_qsn.evaluation.checks import audits
from keras_qsn.evaluation.checks import registry
from keras_qsn.evaluation.checks import running
from keras_qsn.evaluation.checks import slopes
from keras_qsn.evaluation.checks import trials
from keras_qsn.evaluation.checks.probe import Probe
from keras_qsn.evaluation.facts import ModelFacts
from keras_qsn.evaluation.outcomes import Outcome
from keras_qsn.evaluation.outcomes import Step
from keras_qsn.evaluation.result import Evaluation
from keras_qsn.evaluation.threat_model import ThreatModel
from keras_qsn.layers import ConstantQuantization
from keras_qsn.layers import QuantLayer
from keras_qsn.models import KerasModelWrapper

EPS = 0.3
BUDGET = running.Budget(images=16, nb_iter=20, restarts=4, samples=20)


@pytest.fixture
def images(digits):
    return digits.x_test[::40], digits.y_test[::40]


def probe_of(
    model,
    x,
    y,
    broken=(),
    eps=EPS,
    budget=BUDGET,
    from_logits=None,
    certified=None,
    mode="all",
):
    """A probe after attacks that broke `broken`: `{threat: {number: x}}`."""
    wrapper = KerasModelWrapper(model, from_logits)
    prediction = np.asarray(wrapper(x)).argmax(-1)
    outcomes = []
    for threat, found in dict(broken).items():
        numbers = np.array(sorted(found), int)
        outcomes.append(
            Outcome(
                Step(threat, threat, attacks.ProjectedGradientDescent(eps)),
                np.arange(len(x)),
                numbers,
                np.array([found[n] for n in numbers], "float32").reshape(
                    -1, *x.shape[1:]
                ),
                (y[numbers] + 1) % 10,
                0,
                0.0,
            )
        )
    evaluation = Evaluation({}, x, y, prediction, outcomes, [], {}, {})
    threat = ThreatModel(eps, np.inf)
    facts = ModelFacts.of(wrapper, x.shape[1:], threat)
    return Probe(wrapper, evaluation, threat, facts, budget, certified, mode)


def behind(model, *layers):
    shape = model.input_shape[1:]
    return keras.Sequential([keras.Input(shape), *layers, model])


def examples(model, x, y, eps=EPS):
    """What PGD finds, by the number of the image."""
    attack = attacks.ProjectedGradientDescent(eps, nb_iter=20)
    result = attack.run(model, x, y)
    right = np.asarray(model(x)).argmax(-1) == y
    return {n: result.x_adv[n] for n in np.flatnonzero(result.success & right)}


class Reversed(keras.layers.Layer):
    """The identity, with the gradient of its negative."""

    def call(self, inputs):
        return 2 * tf.stop_gradient(inputs) - inputs


class Noise(keras.layers.Layer):
    """A defence that draws random numbers."""

    def call(self, inputs):
        return inputs + tf.random.normal(tf.shape(inputs), stddev=2.0)


def rounded(model):
    """A quantizer that hides from this package."""
    return behind(model, keras.layers.Lambda(lambda x: tf.round(4 * x) / 4))


@pytest.mark.parametrize("steps", [2, 9])
def test_steps_do_not_ask_what_the_model_is_made_of(monkeypatch, steps):
    """It takes as long as a step where layers are many."""
    model, x = small_cnn(), np.full((2, 28, 28, 1), 0.5, "float32")
    y, asked = KerasModelWrapper(model).predict(x), []
    probe = probe_of(model, x, y)
    attack = attacks.ProjectedGradientDescent(1e-6, nb_iter=steps)
    probe.survives(attack)
    monkeypatch.setattr(
        "keras_qsn.classifier.wrapper.structure_of",
        lambda model: asked.append(1) or structure_of(model),
    )
    probe.survives(attack)
    assert len(asked) < 9


def statuses(model, x, y, **kwargs):
    probe = probe_of(model, x, y, **kwargs)
    return {
        key.replace("-", "_"): entry.run(probe).status
        for key, entry in registry.ENTRIES.items()
        if key not in ("sandwich", "active-test")
    }


def test_an_honest_evaluation_passes(trained, images):
    x, y = images
    model = trained["none"]
    found = examples(model, x, y)
    status = statuses(model, x, y, broken={"white-box": found})
    wanted = {name: "pass" for name in status}
    # Nothing to transfer from; no quantizer.
    wanted |= {"transfer": "warn"}
    wanted |= {name: "none" for name in ("surrogates", "cube", "soft_and_hard")}
    # Twenty steps may still gain a little in loss.
    assert status.pop("loss_curve") in ("pass", "warn")
    del wanted["loss_curve"]
    assert status == wanted


def test_a_hidden_quantizer_is_found_out(trained, images):
    """By what is blind on it, and by chance, which is not."""
    x, y = images
    status = statuses(rounded(trained["none"]), x, y, eps=0.45)
    for name in ("gradient_health", "eps_sweep", "unbounded", "random_search"):
        assert status[name] == "fail", name


def test_random_models_taken_for_others_are_found_out(trained, images):
    x, y = images
    probe = probe_of(behind(trained["none"], Noise()), x, y)
    assert audits.determinism(probe)[0] == "fail"
    assert trials.eps_zero(probe)[0] == "fail"


def test_gradients_of_the_wrong_sign_are_found_out(trained, images):
    x, y = images
    probe = probe_of(behind(trained["none"], Reversed()), x, y, eps=0.1)
    assert slopes.finite_difference(probe)[0] == "warn"
    right = probe_of(trained["none"], x, y, eps=0.1)
    assert slopes.finite_difference(right)[0] == "pass"


def test_steps_that_break_fewer_images_are_found_out(trained, images):
    """A gradient that helps a large step and misleads small ones."""
    x, y = images
    probe = probe_of(trained["none"], x, y)
    left = iter([0.2, 0.9, 0.9])
    probe.survives = lambda attack: np.full(16, next(left))
    status, value, _ = trials.ladder(probe)
    assert status == "fail"
    assert value == "FGSM 20.0 %, PGD-10 90.0 %, PGD-20 90.0 % left"
    left = iter([0.9, 0.2, 0.2 + 1 / 16])
    assert trials.ladder(probe)[0] == "warn"


def test_attacks_cut_short_are_found_out(trained, images):
    x, y = images
    few = running.Budget(images=16, nb_iter=1, restarts=4, samples=1)
    probe = probe_of(trained["none"], x, y, eps=0.05, budget=few)
    assert slopes.loss_curve(probe)[0] == "warn"
    assert len(probe.trace["PGD"]) == 3
    few_more = iter([np.arange(16) > 2, np.arange(13) > 1, np.arange(11) > 1])
    probe.survives = lambda attack, rows: next(few_more)
    status, value, _ = trials.restarts(probe)
    assert status == "warn"
    assert value == "1: 81.2 % left, 2: 68.8 % left, 4: 56.2 % left"


def test_saturated_logits_and_probabilities_are_found_out(trained, images):
    x, y = images
    large = keras.Sequential(
        [keras.Input((28, 28, 1)), trained["none"]]
        + [keras.layers.Rescaling(100.0)]
    )
    assert audits.logit_scale(probe_of(large, x, y))[0] == "warn"
    soft = keras.Sequential(
        [keras.Input((28, 28, 1)), trained["none"], keras.layers.Softmax()]
    )
    probe = probe_of(soft, x, y, from_logits=True)
    assert audits.logit_scale(probe)[0] == "fail"
    # The wrapper takes the softmax off where it is not told otherwise.
    assert audits.logit_scale(probe_of(soft, x, y))[0] == "pass"


@pytest.mark.parametrize(
    ("change", "bad"),
    [
        (lambda x, x_adv: x, True),
        (lambda x, x_adv: x + 1.5 * (x_adv - x), True),
        (lambda x, x_adv: x_adv, False),
    ],
    ids=["clean", "outside", "honest"],
)
def test_false_examples_are_found_out(change, bad, trained, images):
    x, y = images
    model = trained["none"]
    found = {n: change(x[n], a) for n, a in examples(model, x, y).items()}
    probe = probe_of(model, x, y, broken={"white-box": found})
    assert (audits.silent_success(probe)[0] == "fail") == bad


def test_broken_certificates_are_found_out(trained, images):
    x, y = images
    model = trained["none"]
    found = examples(model, x, y, eps=0.1)
    certified = np.ones(len(x), bool)
    probe = probe_of(
        model, x, y, broken={"white-box": found}, certified=certified
    )
    assert audits.sandwich(probe)[0] == "fail"
    certified[list(found)] = False
    certified &= probe.evaluation.correct
    assert audits.sandwich(probe)[0] == "pass"
    # What a check breaks counts too.
    probe.broken["queries"][int(np.flatnonzero(certified)[0])] = x[0]
    assert audits.sandwich(probe)[0] == "fail"
    probe.certified = None
    assert registry.ENTRIES["sandwich"].run(probe).status == "none"


@pytest.mark.parametrize(
    ("check", "threat", "few"),
    [
        (audits.queries, "queries", 0),
        (audits.transfer, "transfer", 0),
        (audits.surrogates, "adaptive", 0),
    ],
)
def test_what_only_others_break_is_named(check, threat, few, trained, images):
    x, y = images
    model = trained["hard"]
    found = {2: x[2], 5: x[5]}
    first = {"white-box": {}}
    status, value, _ = check(probe_of(model, x, y, {**first, threat: found}))
    assert status == "warn"
    assert value.startswith("2 images") and value.endswith("(2, 5)")
    status, value, _ = check(probe_of(model, x, y, {**first, threat: {}}))
    assert status == "pass" and value.startswith("0 images")


def test_who_wins_does_not_depend_on_the_order(trained, images):
    """An image that queries broke first is tried by the white box, too."""
    x, y = images
    model = trained["none"]
    found = dict([*examples(model, x, y).items()][:3])
    probe = probe_of(model, x, y, {"queries": found})
    assert audits.queries(probe)[:2] == (
        "pass",
        "0 images broken by queries alone",
    )
    assert probe.used == [
        "ProjectedGradientDescent(nb_iter=20, nb_restarts=1)",
        "queries",
    ]
    # Light checks attack nothing, and say what they do not know.
    probe = probe_of(model, x, y, {"queries": found}, mode="light")
    assert audits.queries(probe)[:2] == (
        "pass",
        "0 images broken by queries alone; 3 more that white-box attacks did "
        "not see",
    )


def test_what_is_broken_is_filed_under_who_broke_it(trained, images):
    x, y = images
    probe = probe_of(trained["none"], x, y)
    broken = examples(trained["none"], x, y)
    numbers = np.array([*broken][:3])
    x_adv = np.stack([broken[n] for n in numbers])
    probe.keep("queries", numbers, x_adv, np.array([True, True, False]))
    probe.keep("white-box", numbers, x_adv, np.array([True, False, False]))
    white_box, queries = probe.outcomes()
    assert white_box.step.name == "checks: white-box"
    assert white_box.broken.tolist() == [numbers[0]]
    # What white-box attackers break too is no find of queries.
    assert queries.step.threat == "queries"
    assert queries.broken.tolist() == [numbers[1]]
    assert queries.tried.tolist() == numbers[1:].tolist()


def test_a_plain_network_under_fgsm_alone_is_not_called_masked(trained, images):
    x, y = images
    model = trained["none"]
    plan = [attacks.FastGradientMethod(0.1)]
    found = evaluate_robustness(model, x, y, eps=0.1, plan=plan, verbose=0)
    names = [outcome.step.name for outcome in found.outcomes]
    assert names == ["FastGradientMethod", "checks: white-box"]
    assert set(found.unmasked.values()) == {None}


def test_light_checks_attack_next_to_nothing(trained, images, monkeypatch):
    x, y = images
    for kind in (attacks.ProjectedGradientDescent, attacks.CubeAttack):
        monkeypatch.setattr(kind, "_perturb", None)
    found = evaluate_robustness(
        trained["hard"],
        x,
        y,
        plan=[attacks.FastGradientMethod()],
        checks="light",
        verbose=0,
    )
    keys = {check.key for check in found.checks}
    assert keys == {
        key for key, entry in registry.ENTRIES.items() if entry.light
    }
    assert "curve_images" not in found.settings and not found.curve
    none = evaluate_robustness(
        trained["hard"],
        x,
        y,
        plan=[attacks.FastGradientMethod()],
        checks=None,
        verbose=0,
    )
    assert none.checks == [] and none.settings["checks"] is None
    assert "## Checks\n\nNone was run." in report.to_markdown(none)


def test_evaluations_can_be_compared(trained, images):
    one = probe_of(trained["none"], *images).evaluation
    two = probe_of(trained["none"], *images, {"queries": {}}).evaluation
    assert one == one and one != two
    assert two.outcomes[0] == two.outcomes[0]
    assert two.outcomes[0] != dataclasses.replace(two.outcomes[0])


def test_tables_of_features_with_ranges_of_their_own():
    """Scaled to [0, 1], the same evaluation."""
    keras.utils.set_random_seed(0)
    low, width = np.array([0.0, -5.0, 100.0]), np.array([1.0, 10.0, 50.0])
    line = keras.layers.Dense(3)
    unit = keras.Sequential([keras.Input((3,)), line])
    raw = keras.Sequential(
        [
            keras.Input((3,)),
            keras.layers.Normalization(
                mean=low.tolist(), variance=(width**2).tolist()
            ),
            line,
        ]
    )
    x = np.random.default_rng(0).uniform(size=(30, 3)).astype("float32")
    y = KerasModelWrapper(unit).predict(x)
    scale = (low.astype("float32"), (low + width).astype("float32"))
    found = evaluate_robustness(
        raw,
        (low + width * x).astype("float32"),
        y,
        eps=0.5,
        plan="quick",
        value_range=scale,
        verbose=0,
    )
    assert found.settings["value_range"] == [end.tolist() for end in scale]
    assert (found.x_adv >= scale[0]).all() and (found.x_adv <= scale[1]).all()
    assert found.robust_accuracy < 1
    status = {check.key: check.status for check in found.checks}
    assert status["unbounded"] == "pass" and status["eight-bit"] == "none"


def test_a_weak_cube_attack_is_found_out(trained, images, monkeypatch):
    x, y = images
    model = trained["soft"]
    found = examples(model, x, y)
    assert found
    probe = probe_of(model, x, y, broken={"white-box": found})
    assert trials.cube(probe)[0] == "pass"
    assert trials.self_test(probe)[0] == "pass"
    monkeypatch.setattr(
        attacks.CubeAttack, "_perturb", lambda self, opened, x, *rest: x
    )
    # Compiled anew: the old one is not weak.
    fresh = keras.models.clone_model(model)
    fresh.set_weights(model.get_weights())
    probe = probe_of(fresh, x, y, broken={"white-box": found})
    assert trials.cube(probe)[0] == "warn"
    assert trials.self_test(probe)[0] == "fail"


def test_planted_examples(trained, images, monkeypatch):
    x, y = images
    for name in ("none", "soft"):
        rate, count = active.pass_rate(probe_of(trained[name], x, y))
        assert count > 10 and rate >= 0.9
    monkeypatch.setattr(
        attacks.ProjectedGradientDescent,
        "_perturb",
        lambda self, logits_fn, x, *rest: x,
    )
    probe = probe_of(trained["none"], x, y)
    assert trials.active_test(probe)[0] == "warn"
    head = keras.Sequential(
        [keras.Input((28, 28, 1)), keras.layers.Conv2D(10, 28)]
        + [keras.layers.Flatten()]
    )
    assert trials.active_test(probe_of(head, x, y))[0] == "none"


def test_a_dead_network_is_judged_like_any_other(images):
    """A training that stalled: its features are 0 and its answer is one."""
    x, y = images[0][:16], images[1][:16]
    dead = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            QuantLayer(2, 50.0),
            keras.layers.Flatten(),
            keras.layers.Dense(8, "relu", kernel_initializer="zeros"),
            keras.layers.Dense(10),
        ]
    )
    dead.layers[-1].bias.assign(np.eye(10)[y[0]])
    found = evaluate_robustness(dead, x, y, eps=0.3, plan="quick", verbose=0)
    assert found.robust_accuracy == found.clean_accuracy == (y == y[0]).mean()
    assert found.failed


def test_soft_and_hard_levels(trained, images):
    x, y = images
    probe = probe_of(trained["hard"], x, y)
    assert audits.soft_and_hard(probe)[0] == "pass"
    squeezed = defenses.squeezed(trained["none"], defenses.BitDepthReduction(1))
    assert audits.soft_and_hard(probe_of(squeezed, x, y))[0] == "pass"
    blurred = behind(trained["none"], QuantLayer(2, 1.0))
    x, y = x, np.asarray(blurred(x)).argmax(-1)
    assert audits.soft_and_hard(probe_of(blurred, x, y))[0] == "warn"


def test_examples_between_grey_levels():
    line = linear_model([1.0], -100.2 / 255)
    model = keras.Sequential(
        [keras.Input((1, 1, 1)), keras.layers.Flatten(), line]
    )
    x, y = np.full((4, 1, 1, 1), 100 / 255, "float32"), np.zeros(4, int)
    found = {n: x[n] + 0.3 / 255 for n in range(4)}
    status, value, _ = audits.eight_bit(
        probe_of(model, x, y, {"white-box": found}, eps=0.01)
    )
    assert status == "warn" and value.startswith("0.0 % of 4")
    found = {n: x[n] + 1 / 255 for n in range(4)}
    status, value, _ = audits.eight_bit(
        probe_of(model, x, y, {"white-box": found}, eps=0.01)
    )
    assert status == "pass" and value.startswith("100.0 % of 4")


def test_all_of_them_and_what_they_break(trained, images):
    """Numbered in order; what they break counts in the worst case."""
    x, y = images
    probe = probe_of(trained["hard"], x, y)
    done = running.run_checks(probe, print)
    assert [check.number for check in done] == list(range(1, 25))
    assert len({check.key for check in done}) == len(done)
    assert all(check.value and check.meaning for check in done)
    used = {check.key: check.attack for check in done}
    assert used["eps-zero"] == "FastGradientMethod"
    assert "CubeAttack(nb_iter=20" in used["eps-sweep"]
    assert used["logit-scale"] == ""
    # Nothing was attacked before: all that the checks break is new.
    outcomes, curve, trace = probe.outcomes(), probe.curve, probe.trace
    assert sum(len(outcome.broken) for outcome in outcomes) > 1
    for outcome in outcomes:
        wrong = np.asarray(trained["hard"](outcome.x_adv)).argmax(-1)
        assert (wrong != y[outcome.broken]).all()
    eps, left = zip(*curve["strongest"])
    assert (
        list(eps) == sorted(eps) and left[0] == probe.evaluation.clean_accuracy
    )
    assert len(trace["PGD"]) in (BUDGET.nb_iter + 1, 2 * BUDGET.nb_iter + 1)


def test_a_model_that_is_always_wrong(trained, images):
    x, y = images
    wrong = (np.asarray(trained["none"](x)).argmax(-1) + 1) % 10
    probe = probe_of(trained["none"], x, wrong)
    done = {
        check.key: check.status for check in running.run_checks(probe, print)
    }
    assert done.pop("above-chance") == "fail"
    assert done.pop("class-balance") == "pass"
    assert done.pop("gradient-reaches") == "pass"
    assert set(done.values()) == {"none"}
    assert probe.outcomes() == []


def test_quantizers_that_cannot_be_opened(trained, images):
    """The other checks go on; the cube attack is not applicable."""
    x, y = images
    model = behind(
        trained["none"],
        keras.layers.AveragePooling2D(3, 1, "same"),
        ConstantQuantization(2),
    )
    probe = probe_of(model, x, y)
    assert probe.opened is None
    assert registry.ENTRIES["cube"].run(probe).status == "none"
    assert slopes.gradient_health(probe)[1]
