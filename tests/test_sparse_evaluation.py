"""Evaluations in L1 and L0: plans, checks, radii, what is refused."""

import json

import numpy as np
import pytest

from conftest import linear_model
from keras_qsn import attacks
from keras_qsn import cli
from keras_qsn.attacks import norms
from keras_qsn.evaluation import evaluate_robustness
from keras_qsn.evaluation.checks.random_points import random_point
from keras_qsn.evaluation.threat_model import ThreatModel
from keras_qsn.report.schema import to_json

EPS = {1: 8.0, 0: 8}
SPARSE = pytest.mark.parametrize("norm", EPS)


@pytest.fixture(scope="module")
def images(digits):
    return digits.x_test[:40], digits.y_test[:40]


@pytest.fixture(scope="module")
def evaluations(trained, images):
    return {
        norm: evaluate_robustness(
            trained["none"], *images, eps, norm, "quick", verbose=0
        )
        for norm, eps in EPS.items()
    }


@SPARSE
def test_what_is_broken_is_in_the_ball(norm, evaluations):
    evaluation = evaluations[norm]
    moved = evaluation.x_adv != evaluation.x
    changed = moved.reshape(len(moved), -1).any(1)
    broken = evaluation.correct & ~evaluation.robust
    np.testing.assert_array_equal(changed, broken)
    assert 0.1 < evaluation.robust_accuracy < 0.6
    inside = norms.inside(evaluation.x, evaluation.x_adv, EPS[norm], norm)
    assert inside.all()
    far = [image["distance"] for image in to_json(evaluation)["images"]]
    far = np.array(far, float)[broken]
    assert 0 < far.min() and far.max() <= EPS[norm] * (1 + 1e-6)
    assert norm or (far == far.astype(int)).all()


@SPARSE
def test_checks_cope_or_say_that_they_do_not(norm, evaluations):
    status = {check.key: check.status for check in evaluations[norm].checks}
    assert "fail" not in status.values()
    idle = {key for key, value in status.items() if value == "none"}
    needs_steps = {"loss-curve", "self-test", "active-test"}
    needs_other = {"surrogates", "cube", "soft-and-hard", "sandwich"}
    of_a_ball = {"ladder", "restarts"} if norm == 0 else set()
    assert idle == needs_steps | needs_other | of_a_ball
    points = evaluations[norm].curve["strongest"]
    assert [a for _, a in points] == sorted((a for _, a in points))[::-1]
    assert points[-1][1] == 0
    if norm == 0:
        assert all(eps == int(eps) for eps, _ in points)


@SPARSE
def test_a_quantizer_is_attacked_at_its_levels(norm, trained, images):
    x, y = images
    evaluation = evaluate_robustness(
        trained["hard"],
        x,
        y,
        EPS[norm],
        norm,
        "quick",
        sources={"other": trained["none"]},
        checks="light",
        verbose=0,
    )
    names = [outcome.step.name for outcome in evaluation.outcomes]
    assert {"level flips", "BPDA", "soft surrogate, z=5"} < {*names}
    other = "APGD" if norm else "sigma-zero"
    assert {f"{other} from other", "FGSM from other"} < {*names}
    adaptive = [o for o in evaluation.outcomes if o.step.threat == "adaptive"]
    assert sum(len(outcome.broken) for outcome in adaptive)


@SPARSE
@pytest.mark.parametrize("corner", [False, True])
def test_random_points_are_in_the_ball(norm, corner):
    rng = np.random.default_rng(0)
    low = rng.uniform(-3, 0, (6, 6, 1)).astype("float32")
    high = low + rng.uniform(0.5, 4, low.shape).astype("float32")
    x = (low + (high - low) * rng.uniform(size=(9, *low.shape))).astype(
        "float32"
    )
    for eps in (1, 3, 7):
        threat = ThreatModel(float(eps), norm, low, high)
        points = random_point(rng, threat, x, corner)
        assert norms.inside(x, points, eps, norm, low, high).all()
        assert (points != x).reshape(len(x), -1).any(1).mean() > 0.9


def test_the_eps_steepest_pixels_are_the_best_of_a_linear_model():
    w = np.array([3.0, -1.0, 0.5, -2.0, 1.0], "float32")
    x = np.array([[0.1, 0.4, 0.9, 0.2, 1.0]], "float32")
    model = linear_model(w, bias=4.0)
    # What each can take off: 0.3, 0.6, 0.45, 1.6, 1.0.
    for eps, pixels in ((1, [3]), (2, [3, 4]), (3, [1, 3, 4])):
        found = attacks.FastGradientMethod(eps, 0).generate(model, x, [1])
        wanted = x.copy()
        wanted[0, pixels] = np.array([0, 1, 0, 1, 0], "float32")[pixels]
        np.testing.assert_array_equal(found, wanted)


class TestRefusals:
    @pytest.mark.parametrize(
        ("kind", "norm", "message"),
        [
            (attacks.ProjectedGradientDescent, 1, "norm=1 there is AutoProj"),
            (attacks.AutoProjectedGradientDescent, 0, "norm=0 there is Sigma"),
            (attacks.SquareAttack, 0, "norm=0 there is SigmaZero"),
            (attacks.DeepFool, 1, "norm=1 there is AutoProjectedGradient"),
        ],
    )
    def test_a_norm_that_an_attack_lacks(self, kind, norm, message):
        with pytest.raises(ValueError, match=message):
            kind(norm=norm)

    def test_a_part_of_a_pixel(self, trained, images):
        with pytest.raises(ValueError, match="whole number for `norm=0`: how"):
            evaluate_robustness(trained["none"], *images, 0.3, 0, "quick")
        with pytest.raises(ValueError, match="Received: eps=2.5"):
            attacks.FastGradientMethod(2.5, 0).run(trained["none"], *images)

    def test_more_pixels_than_there_are(self, trained, images):
        with pytest.raises(ValueError, match="at most 784, the distance"):
            evaluate_robustness(trained["none"], *images, 785, 0, "quick")

    @pytest.mark.parametrize("norm", ["1", "0"])
    def test_no_radius_on_the_command_line(self, norm, capsys):
        call = ["evaluate", "m.keras", "--data", "digits", "--norm", norm]
        assert cli.main(call) == 2
        assert f"--norm {norm} needs a radius" in capsys.readouterr().err


def test_the_command_line_counts_pixels(trained, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    trained["none"].save("m.keras")
    call = "evaluate m.keras --data digits --images 20 --plan quick --out out"
    assert cli.main([*call.split(), "--norm", "0", "--eps", "5"]) == 0
    report = json.loads((tmp_path / "out/robustness.json").read_text())
    assert (report["settings"]["norm"], report["settings"]["eps"]) == (0, 5)
    assert "sigma-zero-50" in capsys.readouterr().out
