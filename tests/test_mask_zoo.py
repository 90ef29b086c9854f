"""Behind every mask the truth, and the mask by its name."""

import pytest

import masks
from keras_qsn.attacks import ProjectedGradientDescent
from keras_qsn.evaluation import evaluate_robustness
from keras_qsn.report import summary

EPS = 0.3


@pytest.fixture
def images(digits):
    return digits.x_test[::20], digits.y_test[::20]


def told(evaluation):
    """All that a report says of the model and of the checks."""
    facts = [f"{name}: {value}" for name, value in summary.facts(evaluation)]
    checks = [
        check.value for check in evaluation.checks if check.status != "pass"
    ]
    return "\n".join([*facts, *checks])


@pytest.mark.parametrize("plan", ["quick", "standard"])
@pytest.mark.parametrize("name", masks.ZOO)
def test_plans_see_through(name, plan, trained, digits, images):
    member = masks.ZOO[name]
    model = member.make(trained["none"], digits)
    found = evaluate_robustness(
        *(model, *images, EPS),
        plan=plan,
        checks="light",
        verbose=0,
        detector=member.detector(model, digits),
    )
    assert found.clean_accuracy > 0.75
    truth = member.left(model, *images, EPS).mean()
    assert found.robust_accuracy <= truth + 0.02
    said = told(found)
    for text in member.named:
        assert text in said
    if not member.named:
        assert not found.settings["masks"] and not found.settings["chance"]
    # What fails is of the gradient that is masked, and never the attack.
    assert all(check.own_gradient for check in found.failed)


def test_plain_attacks_do_not(trained, digits, images):
    """Or the zoo would show nothing."""
    plain = ProjectedGradientDescent(EPS, nb_iter=40)
    for name in (
        "rounding",
        "quantized ensemble",
        "thermometer",
        "JPEG",
        "signs",
        "stochastic quantizer",
    ):
        model = masks.ZOO[name].make(trained["none"], digits)
        left = evaluate_robustness(
            model, *images, EPS, plan=[plain], checks=None, verbose=0
        )
        assert left.robust_accuracy > 0.5
