"""How attacks come at a model: what they go through, around, and average."""

import dataclasses

from keras_qsn.attacks.views.accepted import Accepted
from keras_qsn.attacks.views.expectation import Expectation
from keras_qsn.attacks.views.full_precision import FullPrecision
from keras_qsn.classifier.rebuilt import CannotRebuild
from keras_qsn.classifier.twin import in_few_bits
from keras_qsn.evaluation.sight import Sight
from keras_qsn.evaluation.surrogates import Surrogates
from keras_qsn.evaluation.surrogates import surrogates_of

# Draws that the attacks of a plan average, and the checks.
_DRAWS = {"quick": 8, "standard": 16, "full": 32}


def approach(
    wrapper, x, classes, threat, facts, judge, plan, given, images, folder
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
    settings = {
        "facts": dataclasses.asdict(facts),
        "masks": list(found.masks),
        **precision,
        "chance": judge.chance
        and {
            **dataclasses.asdict(judge.chance),
            "draws": judge.draws,
            # A plan of one's own has views of its own.
            "draws_of_attacks": draws if plan else None,
        },
    }
    return facts, Sight(found.view, views, judge.detector), settings
