"""The public surface: names, docstrings, their examples."""

import doctest
import inspect
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_qsn as qsn

NAMES = {
    "attacks": {
        "AdditiveGaussianNoiseAttack",
        "AnnealedBPDA",
        "Attack",
        "AttackInterrupted",
        "AttackResult",
        "AutoAttack",
        "AutoProjectedGradientDescent",
        "BPDA",
        "BasicIterativeMethod",
        "BlindAttackWarning",
        "CarliniWagnerL2",
        "CubeAttack",
        "DecoupledDirectionNorm",
        "DeepFool",
        "DetectorEvasion",
        "EOT",
        "FastAdaptiveBoundary",
        "FastGradientMethod",
        "FastMinimumNorm",
        "FullPrecision",
        "HopSkipJumpAttack",
        "InputDiversity",
        "LayerSurrogates",
        "LevelFlipAttack",
        "LocalSearchAttack",
        "LowPrecision",
        "MomentumIterativeMethod",
        "PointwiseAttack",
        "ProjectedGradientDescent",
        "SPSA",
        "SaliencyMapMethod",
        "ScaleInvariance",
        "SigmaZero",
        "SinglePixelAttack",
        "SparseRandomSearch",
        "SquareAttack",
        "SubstituteTraining",
        "TransferAttack",
        "TranslationInvariance",
        "View",
        "ViewedAttack",
        "substitute_mlp",
        "train_substitute",
    },
    "callbacks": {"AttackAccuracy", "EpsScheduler", "ExactBackup"},
    "certification": {
        "Activation",
        "Affine",
        "Bounds",
        "Certificate",
        "CertificationInterrupted",
        "PiecewiseLinear",
        "Rule",
        "certify",
        "register_rule",
    },
    "constraints": {"ThresholdRange"},
    "datasets": {
        "Dataset",
        "ShuffledBatches",
        "load",
        "seeded_subset",
        "stratified_subset",
    },
    "defenses": {
        "APEGAN",
        "AdaptiveMisinformation",
        "BitDepthReduction",
        "DefenseGANProjection",
        "Detector",
        "DynamicQuantizationActivation",
        "FeatureSqueezingDetector",
        "HashedConv2D",
        "HashedDense",
        "InhibitedDense",
        "LabelsOnly",
        "MAD",
        "MedianSmoothing",
        "ModelDetector",
        "NoisyAnswers",
        "NonLocalMeans",
        "ReconstructionDetector",
        "ReverseSigmoid",
        "RoundedAnswers",
        "TopAnswers",
        "WassersteinGAN",
        "ape_gan_networks",
        "check_reconstruction",
        "defense_gan_networks",
        "defensive_hashing",
        "gaussian_augmentation",
        "inhibit_gradients",
        "largest_tau",
        "recommended_squeezers",
        "squeezed",
        "undefended",
        "with_bounded_relu",
        "with_defended_answers",
        "with_hashed_layers",
    },
    "deployment": {
        "FakeQuantActivations",
        "FakeQuantWeights",
        "calibrate",
        "export_litert",
        "load_litert",
        "quantization_aware",
    },
    "evaluation": {
        "Answers",
        "Check",
        "Comparison",
        "Detection",
        "Evaluation",
        "Found",
        "MinimalDistances",
        "Outcome",
        "Step",
        "TransferMatrix",
        "UntrustedEvaluation",
        "compare",
        "evaluate_robustness",
        "minimal_distances",
        "transfer_matrix",
        "wilson_interval",
    },
    "extraction": {
        "ActiveThief",
        "CopyCat",
        "DFME",
        "ExtractionAttack",
        "ExtractionComparison",
        "ExtractionResult",
        "JacobianAugmentation",
        "KnockoffNets",
        "MAZE",
        "compare_extractions",
    },
    "initializers": {"EquallySpaced", "initialize_for_intervals"},
    "layers": {
        "ConstantQuantization",
        "QuantLayer",
        "TrainableQuantization",
    },
    "losses": {"ProbabilityMeanSquaredError", "ReverseCrossentropy"},
    "models": {
        "KerasModelWrapper",
        "QueryError",
        "QueryModel",
        "cleverhans_cnn",
        "ensemble",
        "with_preprocessing",
    },
    "optimizers": {"Muon"},
    "paper": {
        "failed_checks",
        "here",
        "limitations",
        "load_results",
        "plot",
        "processes",
        "ray_cluster",
        "reproduce",
        "table",
    },
    "quantization": {
        "equally_spaced_thresholds",
        "in_pixels",
        "make_staircase",
        "reached",
    },
    "training": {
        "AdversarialTraining",
        "Batch",
        "ConsistencyTraining",
        "DefensiveDistillation",
        "DivQAT",
        "IntervalTraining",
        "MART",
        "Objective",
        "QuSecNet",
        "TRADES",
        "ThresholdTraining",
    },
}
OBJECTS = {
    f"{module}.{name}": getattr(getattr(qsn, module), name)
    for module, names in NAMES.items()
    for name in sorted(names)
}


def public_names(module):
    if hasattr(module, "__all__"):
        return {*module.__all__}
    return {
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and getattr(value, "__module__", "").startswith(module.__name__)
    }


def test_the_reference_has_every_module():
    index = (pathlib.Path(__file__).parents[1] / "docs/index.rst").read_text()
    for module in NAMES:
        assert f"   keras_qsn.{module}\n" in index


def test_names():
    assert set(qsn.__all__) == set(NAMES)
    for module, names in NAMES.items():
        assert public_names(getattr(qsn, module)) == names


@pytest.mark.parametrize("name", OBJECTS)
def test_examples_in_docstrings_run(name):
    globs = {"np": np, "tf": tf, "keras": keras}
    globs.update({full.split(".")[1]: thing for full, thing in OBJECTS.items()})
    finder = doctest.DocTestFinder(recurse=False)
    runner = doctest.DocTestRunner()
    for test in finder.find(OBJECTS[name], name, globs=globs):
        failures, _ = runner.run(test)
        assert failures == 0


@pytest.mark.parametrize("name", OBJECTS)
def test_docstrings_say_what_a_user_needs(name):
    thing = OBJECTS[name]
    text = inspect.getdoc(thing)
    if name in ("quantization.reached",):
        return
    assert ">>>" in text or "Attributes:" in text
    parameters = {}
    if "Attributes:" not in text and name != "attacks.BlindAttackWarning":
        parameters = inspect.signature(thing).parameters
    for parameter, value in parameters.items():
        if value.kind in (value.VAR_KEYWORD, value.VAR_POSITIONAL):
            continue
        # What is passed on is told where it goes.
        passed_on = "**kwargs: As for" in text
        if not passed_on and parameter not in ("name", "dtype"):
            assert f"    {parameter}: " in text, parameter


def test_layers_are_registered_with_the_package_name():
    for layer in (
        qsn.layers.QuantLayer,
        qsn.layers.ConstantQuantization,
        qsn.layers.TrainableQuantization,
        qsn.defenses.BitDepthReduction,
        qsn.defenses.DynamicQuantizationActivation,
        qsn.defenses.HashedConv2D,
        qsn.defenses.HashedDense,
        qsn.defenses.InhibitedDense,
        qsn.defenses.MedianSmoothing,
        qsn.defenses.NonLocalMeans,
        qsn.defenses.APEGAN,
        qsn.defenses.DefenseGANProjection,
        qsn.defenses.WassersteinGAN,
        qsn.defenses.AdaptiveMisinformation,
        qsn.defenses.LabelsOnly,
        qsn.defenses.MAD,
        qsn.defenses.NoisyAnswers,
        qsn.defenses.ReverseSigmoid,
        qsn.defenses.RoundedAnswers,
        qsn.defenses.TopAnswers,
        qsn.deployment.FakeQuantActivations,
        qsn.deployment.FakeQuantWeights,
    ):
        registered = keras.saving.get_registered_name(layer)
        assert registered == f"keras_qsn>{layer.__name__}"


def test_plots_and_the_paper_load_when_used():
    script = (
        "import sys\n"
        "sys.modules['matplotlib'] = None\n"
        "import keras_qsn\n"
        "late = ('keras_qsn.paper', 'keras_qsn.report')\n"
        "assert not {*late} & {*sys.modules}\n"
        "assert 'paper' in keras_qsn.__all__\n"
        "del sys.modules['matplotlib']\n"
        "keras_qsn.paper.load_results('digits')\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
    with pytest.raises(AttributeError, match="has no attribute 'papers'"):
        qsn.__getattr__("papers")


@pytest.mark.parametrize(
    ("at_work", "says"),
    [
        (
            "mock.patch('keras.backend.backend', lambda: 'jax')",
            "needs Keras on TensorFlow. Received: the Keras",
        ),
        (
            "mock.patch.dict(sys.modules, keras=None)",
            "Install both, and set KERAS_BACKEND=tensorflow",
        ),
    ],
)
def test_another_backend_is_refused(at_work, says):
    script = (
        "import keras, sys, unittest.mock as mock\n"
        f"with {at_work}:\n"
        "    import keras_qsn"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True
    )
    assert done.returncode != 0
    assert says in done.stderr
