"""An evaluation as JSON."""

import math

from keras_qsn._core.shares import wilson_interval
from keras_qsn.report import summary

SCHEMA_VERSION = 2


def to_json(evaluation):
    """An evaluation as plain values, for `json.dumps`.

    Keys are added without notice. When one goes or changes its meaning,
    `schema_version` grows. An accuracy is an object of `share`, in `[0, 1]`;
    `images`, the number of images; and `low` and `high`, the ends of its
    95 % Wilson interval. A number that is not finite is `null`.

    Returns:
        A dict with the keys

        - `schema_version`: Integer, 2.
        - `settings`: Object, `settings` of the evaluation.
        - `clean_accuracy`, `robust_accuracy`: Accuracies. The second is the
          worst case over all attacks, image by image.
        - `answers`: Of a model that answers at random, an object of `draws`,
          integer, and `mean_accuracy` and `mean_robust_accuracy`, accuracies:
          the mean share of right answers. The two accuracies above are then
          of the majority of the draws. Else `null`.
        - `detection`: Of a detector beside the model, an object of `detector`,
          text; `threshold`, number; `clean_rejected`, an accuracy: the share
          of images that it rejects as they are, which count as wrong; and
          `curve`, a list of objects, one for each of many thresholds, with
          `threshold` and `clean_rejected`, numbers, `accepted`, integer: how
          many attacked images are not rejected, and `accuracy`, number or
          `null`: the share of those that is right. Else `null`.
        - `verdict`: Object of `status` (`"pass"`, `"warn"`, `"fail"`) and
          `sentence`, text.
        - `unmasked`: Object, for `"adaptive"`, `"transfer"` and `"queries"`
          the number of images that such attacks broke and white-box attacks
          of many steps had missed; `null` where none was run on such an
          image.
        - `attacks`: List of objects in the order they ran, each on the
          images that those before had left: `name`, text; `threat`, text;
          `gradient`, text: the one followed; `attack`, text or `null`: the
          class; `config`, object: its arguments; `max_images`, integer or
          `null`; `tried`, `broken`, `blind`, integers: numbers of images;
          `accuracy_left`, accuracy; `seconds`, number.
        - `checks`: List of objects of `number`, integer, and `key` (the same
          in all versions), `name`, `status`, `value`, `meaning`, `attack`
          (what it attacked with, empty if nothing), text, and
          `own_gradient`, boolean: whether it is of the model's own gradient,
          or of who breaks what that hides. Empty if none was run.
        - `curve`: Object, for each attack a list of objects of `eps`, number
          in pixel units, and `accuracy`, accuracy. Its `images`, `low` and
          `high` are `null` where the number of images is not known
          (`curve_images` in the settings).
        - `trace`: Object, for each attack the mean loss after each step.
        - `images`: List of objects: `index`, `label`, `prediction`,
          integers; `broken_by`, text or `null`: the attack; `became`, integer
          or `null`: the class that the broken image gets; `distance`, number
          or `null`: the norm of the perturbation, in pixel units.
    """
    count = len(evaluation.y)
    status, sentence = summary.verdict(evaluation)
    return _plain(
        {
            "schema_version": SCHEMA_VERSION,
            "settings": evaluation.settings,
            "clean_accuracy": accuracy(evaluation.clean_accuracy, count),
            "robust_accuracy": accuracy(evaluation.robust_accuracy, count),
            "answers": _answers(evaluation.answers, count),
            "detection": _detection(evaluation),
            "verdict": {"status": status, "sentence": sentence},
            "unmasked": evaluation.unmasked,
            "attacks": _attacks(evaluation),
            "checks": [vars(check) for check in evaluation.checks],
            "curve": {
                name: [
                    {
                        "eps": eps,
                        "accuracy": accuracy(
                            share, evaluation.settings.get("curve_images")
                        ),
                    }
                    for eps, share in points
                ]
                for name, points in evaluation.curve.items()
            },
            "trace": evaluation.trace,
            "images": images(evaluation),
        }
    )


def accuracy(share, count):
    """An accuracy as `to_json` documents it."""
    low, high = wilson_interval(share, count) if count else (None, None)
    return {"share": share, "images": count, "low": low, "high": high}


def _answers(answers, count):
    return answers and {
        "draws": answers.draws,
        "mean_accuracy": accuracy(answers.mean_accuracy, count),
        "mean_robust_accuracy": accuracy(answers.mean_robust_accuracy, count),
    }


def _detection(evaluation):
    found = evaluation.detection
    return found and {
        "detector": found.detector,
        "threshold": found.threshold,
        "clean_rejected": accuracy(
            float(found.rejected.mean()), len(evaluation.y)
        ),
        "curve": evaluation.rejection_curve(),
    }


def _attacks(evaluation):
    entries = []
    for outcome, left in zip(evaluation.outcomes, evaluation.accuracy_after()):
        entries.append(
            {
                **outcome.step.get_config(),
                "gradient": summary.GRADIENTS[outcome.step.threat],
                "tried": len(outcome.tried),
                "broken": len(outcome.broken),
                "blind": outcome.blind,
                "accuracy_left": accuracy(left, len(evaluation.y)),
                "seconds": outcome.seconds,
            }
        )
    return entries


def images(evaluation):
    """What became of each image, a dict as `to_json` documents it."""
    numbers = summary.broken_by(evaluation)
    moved = summary.distances(evaluation)
    became = summary.became(evaluation)
    names = [outcome.step.name for outcome in evaluation.outcomes]
    return [
        {
            "index": i,
            "label": label,
            "prediction": prediction,
            "broken_by": names[number] if number >= 0 else None,
            "became": became[i] if number >= 0 else None,
            "distance": moved[i] if number >= 0 else None,
        }
        for i, (label, prediction, number) in enumerate(
            zip(evaluation.y, evaluation.prediction, numbers)
        )
    ]


def _plain(value):
    """Values that JSON knows."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, (str, int, float)):
        return value
    return str(value)
