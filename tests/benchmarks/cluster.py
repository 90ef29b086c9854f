"""A cluster on paper: the scheduler of evaluations against a simulated clock.

    python tests/benchmarks/cluster.py

Which batch runs when is decided by the library's own `Flow`; how long one
takes, what it breaks and which node is lost are assumptions, printed first.
`docs/cluster.rst` quotes the output.
"""

import collections
import heapq

import numpy as np

from keras_qsn._core.kept import Folder
from keras_qsn.evaluation.flow import Flow
from keras_qsn.evaluation.outcomes import Outcome
from keras_qsn.evaluation.outcomes import Step

IMAGES, CORRECT = 50_000, 0.76
PIXELS = 224 * 224 * 3
NODES, SLOTS = 64, 16
# Of a network like ResNet-50 on two cores; a forward pass is a third of it.
SECONDS_A_GRADIENT = 0.25
# Gradients an image costs, share of the images tried that it breaks, and how
# many images it tries: the standard plan, of a model trained against attacks.
PLAN = {
    "FGSM": (1, 0.30, None),
    "PGD-100": (200, 0.12, None),
    "APGD-CE": (100, 0.02, None),
    "APGD-DLR": (100, 0.02, None),
    "FAB-T": (120, 0.005, None),
    "transfer": (122, 0.0, None),
    "surrogates": (280, 0.005, None),
    "Square-1000": (333, 0.002, None),
    "HopSkipJump-10": (3000, 0.0, 50),
}


def simulated(batch_size, lost=()):
    """Hours the plan takes, share of the time that slots are at work, images
    sent, and gradients computed in vain.

    Args:
        batch_size: Images of a unit.
        lost: Hours at which a node is lost, with all that it is at.
    """
    rng = np.random.default_rng(0)
    steps = [
        Step(name, "queries", None, most) for name, (_, _, most) in PLAN.items()
    ]
    numbers = np.flatnonzero(rng.random(IMAGES) < CORRECT)
    broken_by = {
        name: rng.random(IMAGES) < share for name, (_, share, _) in PLAN.items()
    }
    flow = Flow(steps, numbers, IMAGES, batch_size, Folder(None))
    free = [(node, slot) for node in range(NODES) for slot in range(SLOTS)]
    waiting, running, events = [], {}, []
    for hour in lost:
        heapq.heappush(events, (hour * 3600, -1))
    clock = at_work = in_vain = sent = count = 0
    total = collections.Counter()
    while True:
        while free:
            batch = waiting.pop() if waiting else flow.batch(ahead=True)
            if batch is None:
                break
            stage, first, tried = batch
            gradients = PLAN[stage.step.name][0] * len(tried)
            # Some nodes are busier than others.
            rng = np.random.default_rng([stage.number, first])
            seconds = gradients * SECONDS_A_GRADIENT * rng.uniform(0.9, 1.2)
            count += 1
            running[count] = free.pop(), batch, clock
            heapq.heappush(events, (clock + seconds, count))
            sent += len(tried)
        if not running:
            break
        clock, number = heapq.heappop(events)
        if number == -1:
            # The node with the most to lose.
            node = running[min(running)][0][0]
            free = [place for place in free if place[0] != node]
            for number in [n for n in running if running[n][0][0] == node]:
                _, batch, began = running.pop(number)
                waiting.append(batch)
                in_vain += clock - began
            continue
        if number not in running:
            continue
        place, (stage, first, tried), began = running.pop(number)
        free.append(place)
        at_work += clock - began
        total[stage.step.name] += len(tried)
        hit = tried[broken_by[stage.step.name][tried]]
        nothing = np.zeros((len(hit), 0))
        flow.take(stage, first, Outcome(stage.step, tried, hit, nothing, 0, 0))
    assert all(stage.complete for stage in flow.stages)
    busy = at_work / (clock * NODES * SLOTS)
    return clock / 3600, busy, sent, in_vain / 3600, total


def main():
    image = PIXELS * 4
    print(f"An image: {image / 1e6:.2f} MB; all: {IMAGES * image / 1e9:.1f} GB")
    for batch_size in (4, 8, 32):
        hours, busy, sent, _, total = simulated(batch_size)
        print(
            f"batch {batch_size}: {hours:.2f} h, slots at work {busy:.0%}, "
            f"a unit carries {batch_size * image / 1e6:.0f} MB, longest "
            f"{333 * batch_size * SECONDS_A_GRADIENT / 60:.0f} min, "
            f"{sent * image / 1e9:.0f} GB sent, "
            f"{sent * image / 1e6 / (hours * 3600):.0f} MB/s"
        )
        for lost in ((1.0,), (0.5, 1.0, 1.5)):
            after, _, resent, in_vain, again = simulated(batch_size, lost)
            assert again == total
            print(
                f"  {len(lost)} node(s) lost: {60 * (after - hours):+.0f} min, "
                f"{in_vain:.1f} slot-hours in vain, "
                f"{(resent - sent)} images sent again"
            )
    print("tried:", dict(total))


if __name__ == "__main__":
    main()
