"""How attacks come at a model: what they go through, around, and average."""

import dataclasses

from keras_qsn._core.precision import fast_dtype
from keras_qsn._core.precision import has_inner_layers
from keras_qsn.attacks.views.accepted import Accepted
from keras_qsn.attacks.views.expectation import Expectation
from keras_qsn.attacks.views.full_precision import FullPrecision
from keras_qsn.attacks.views.low_precision import LowPrecision
from keras_qsn.classifier.rebuilt import CannotRebuild
from keras_qsn.classifier.twin import in_few_bits
from keras_qsn.evaluation.sight import Sight
from keras_qsn.evaluation.surrogates import Surrogates
from keras_qsn.evaluation.surrogates import surrogates_of

# Draws that the attacks of a plan average, and the checks.
_DRAWS = {"quick": 8, "standard": 16, "full": 32}


def approach(
    wrapper,
    x,
    classes,
    threat,
    facts,
    judge,
    plan,
    given,
    images,
    attack_dtype,
    folder,
):
    """The facts of a model, completed, and how its attacks look at it.

    Args:
        wrapper: The model's `KerasModelWrapper`.
        x: Images that are attacked.
        classes: The classes the model gives them.
        threat: The `ThreatModel`.
        facts: The `ModelFacts` so far.
        judge: The `Judge`.
        plan: Name of the plan; `None` for one of the user's own.
        given: The user's surrogates, `{layer name: surrogate}`.
        images: Images to fit surrogates on; `None` for `x`.
        attack_dtype: Name of the float type that attacks which climb compute
            the inner layers in; `None` for the one that is fast here.
        folder: The `Folder` of the evaluation.

    Returns:
        The `ModelFacts`, the `Sight`, and what stands of it in the settings.
    """
    views, draws = (), 0
    if judge.is_random:
        draws = _DRAWS.get(plan, min(_DRAWS.values()))
        views = (Expectation(draws, threat.seed),)
    precision = {}
    if in_few_bits(wrapper.model):
        try:
            wrapper = FullPrecision().model(wrapper)
            views = (*views, FullPrecision())
            precision = {"precision": "attacked through its float32 twin"}
        except CannotRebuild as error:
            precision = {"precision": f"attacked as it is: {error}"}
    if judge.detector is not None:
        views = (Accepted(judge.detector), *views)
    found = Surrogates()
    if not facts.answers_only:
        found = surrogates_of(wrapper, x, threat, given, images, folder)
    facts = dataclasses.replace(facts, random=judge.is_random)
    facts = facts.with_masks(wrapper, x, classes, found.layers)
    rounded = None
    if plan is not None and not facts.answers_only and not precision:
        rounded = _rounded(wrapper, attack_dtype, folder)
    settings = {
        "facts": dataclasses.asdict(facts),
        "masks": list(found.masks),
        **precision,
        "attack_dtype": rounded.dtype if rounded else None,
        "chance": judge.chance
        and {
            **dataclasses.asdict(judge.chance),
            "draws": judge.draws,
            # A plan of one's own has views of its own.
            "draws_of_attacks": draws if plan else None,
        },
    }
    return facts, Sight(found.view, views, judge.detector, rounded), settings


def _rounded(wrapper, dtype, folder):
    """The view of attacks that climb, or `None`; a folder keeps its type."""
    if not has_inner_layers(wrapper.model):
        return None
    kept = folder.get("attack_dtype.json")
    if kept is None:
        kept = dtype or fast_dtype()
        folder.put("attack_dtype.json", kept)
    return None if kept == "float32" else LowPrecision(kept)
