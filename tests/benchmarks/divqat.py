"""Does DivQAT lower what a thief copies, at equal accuracy?

    python3 tests/benchmarks/divqat.py --data mnist --seeds 0 1 2

Writes `divqat.md` and `divqat.jsonl` beside this file, a line for each copy,
and goes on after the last one. For each seed a small CNN is trained, its int8
twin by plain quantization-aware training, and twins by DivQAT of growing
weights; the largest weight counts that keeps the twin's accuracy on held-out
images within a point of the plain one's. Thieves ask each victim about other
training images; agreement is measured on the test set.
"""

import argparse
import json
import pathlib

import keras
import numpy as np
from networks import small as cnn

from keras_qsn import datasets
from keras_qsn import deployment
from keras_qsn import report
from keras_qsn.defenses import ReverseSigmoid
from keras_qsn.defenses import RoundedAnswers
from keras_qsn.defenses import with_defended_answers
from keras_qsn.extraction import KnockoffNets
from keras_qsn.models import KerasModelWrapper
from keras_qsn.training import DivQAT
from keras_qsn.training import QuSecNet

RESULTS = pathlib.Path(__file__).with_suffix(".jsonl")
WEIGHTS = (0.1, 0.2, 0.3, 0.4)
# Accuracy that DivQAT may cost on held-out images.
POINT = 0.01
# Images trained on, held out, and asked about.
SIZES = {"digits": (2000, 500, 1500), "mnist": (20_000, 5_000, 2_000)}
DEFENCES = {
    "none": (),
    "rounded to tenths": (RoundedAnswers(1),),
    "reverse sigmoid": (ReverseSigmoid(),),
}
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def fitted(model, x, y, seed, epochs, rate):
    model.compile(keras.optimizers.Adam(rate), LOSS)
    batches = datasets.ShuffledBatches(x, y, 64, seed)
    model.fit(batches, epochs=epochs, shuffle=False, verbose=0)


def accuracy(model, x, y):
    return float((KerasModelWrapper.of(model).predict(x) == y).mean())


def victims(x, y, held_out, seed):
    """The three victims by name, and DivQAT's weight."""
    original = cnn(seed)
    fitted(original, x, y, seed, 4, 1e-3)

    def trained(weight):
        twin = deployment.quantization_aware(original, x[:500])
        net = QuSecNet(twin, DivQAT(original, weight))
        fitted(net, x, y, seed, 2, 3e-4)
        return twin

    made = {"float": original, "QAT": trained(0.0)}
    least = accuracy(made["QAT"], *held_out) - POINT
    weight, made["DivQAT"] = 0.0, made["QAT"]
    for other in WEIGHTS:
        twin = trained(other)
        if accuracy(twin, *held_out) >= least:
            weight, made["DivQAT"] = other, twin
    return made, weight


def lines():
    if not RESULTS.exists():
        return []
    return [json.loads(line) for line in RESULTS.read_text().splitlines()]


def measured(seed, data, name):
    """Lines of one seed, as they are found."""
    done = {
        (line["victim"], line["defence"], line["answers"])
        for line in lines()
        if line["seed"] == seed and line["data"] == name
    }
    plan = [
        (victim, defence, answers)
        for victim in ("float", "QAT", "DivQAT")
        for answers in ("soft", "hard")
        for defence in (DEFENCES if answers == "soft" else ["none"])
    ]
    if done.issuperset(plan):
        return
    x, y = datasets.seeded_subset(data.x_train, data.y_train, None, seed)
    own, held, asked = np.split(
        np.arange(sum(SIZES[name])), np.cumsum(SIZES[name])[:2]
    )
    made, weight = victims(x[own], y[own], (x[held], y[held]), seed)
    for victim, defence, answers in plan:
        if (victim, defence, answers) in done:
            continue
        model = made[victim]
        if DEFENCES[defence]:
            model = with_defended_answers(model, *DEFENCES[defence])
        thief = KnockoffNets(len(asked), answers, seed=seed)
        result = thief.run(
            model,
            cnn(seed + 100),
            x[asked],
            data.x_test,
            data.y_test,
            clean=made["float"],
            verbose=0,
        )
        yield {
            "data": name,
            "seed": seed,
            "victim": victim,
            "weight": weight if victim == "DivQAT" else 0.0,
            "defence": defence,
            "answers": answers,
            "queries": result.queries,
            "test images": len(data.y_test),
            "victim right": result.victim_accuracy,
            "copy right": result.copy_accuracy,
            "agreement": result.agreement,
            "moved": result.l1,
        }


def table(found):
    rows = {}
    for line in found:
        key = line["victim"], line["defence"], line["answers"]
        rows.setdefault(key, []).append(line)

    def cell(group, name):
        values = [100 * line[name] for line in group]
        spread = f" ({min(values):.1f} to {max(values):.1f})"
        return f"{np.mean(values):.1f}" + spread * (len(values) > 1)

    return report.markdown_table(
        ["victim", "defence", "answers", "seeds", "victim right, %"]
        + ["copy right, %", "agreement, %", "L1 to the float network"],
        [
            [
                *key,
                str(len(group)),
                *(cell(group, n) for n in ("victim right", "copy right")),
                cell(group, "agreement"),
                f"{np.mean([line['moved'] for line in group]):.3f}",
            ]
            for key, group in rows.items()
        ],
        "lllrrrrr",
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", choices=SIZES, default="digits")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    data = datasets.load(options.data)
    for seed in options.seeds:
        for line in measured(seed, data, options.data):
            print(json.dumps(line), flush=True)
            with RESULTS.open("a") as file:
                file.write(json.dumps(line) + "\n")
    found = [line for line in lines() if line["data"] == options.data]
    weights = sorted({(n["seed"], n["weight"]) for n in found if n["weight"]})
    told = ", ".join(f"{weight:g} (seed {seed})" for seed, weight in weights)
    own, held, asked = SIZES[options.data]
    report.write_text(
        RESULTS.with_suffix(".md"),
        "# DivQAT against thieves\n\nMade by `python3 tests/benchmarks/"
        f"divqat.py --data {options.data}`: victims of 57,000 weights trained "
        f"on {own:,} training images of {data.description}, "
        f"`KnockoffNets` with {asked:,} other ones as queries, agreement on "
        f"{len(data.y_test):,} test images; mean and range over seeds. Weight "
        f"of DivQAT, chosen on {held:,} held-out images: {told or 'none'}.\n\n"
        + table(found)
        + "\n",
    )


if __name__ == "__main__":
    main()
