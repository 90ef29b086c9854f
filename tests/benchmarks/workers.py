"""Several processes against one: time, and what SIGKILL does to the answers.

    python tests/benchmarks/workers.py time certify --images 200
    python tests/benchmarks/workers.py time standard --images 400
    python tests/benchmarks/workers.py kill quick --images 100 --times 20

`time` runs each piece of work in a fresh process, one worker and two in turn,
and prints the seconds of the work, what it builds included; on a machine that
others use too, those of processors say more. `kill` sends SIGKILL to a worker,
or to the whole run, at random moments, goes on, and compares with a run left
alone.
"""

import argparse
import json
import os
import pathlib
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time


def prepare(folder, images):
    """A small trained network with a hard quantizer, and digits."""
    import keras
    import numpy as np

    from keras_qsn import datasets
    from keras_qsn import layers

    keras.utils.set_random_seed(0)
    data = datasets.load("digits")
    model = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.ConstantQuantization(2, hard=True),
            keras.layers.Conv2D(8, 5, strides=3, activation="relu"),
            keras.layers.Conv2D(16, 3, strides=2, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(10),
        ]
    )
    model.compile(
        "adam",
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    model.fit(data.x_train, data.y_train, epochs=3, verbose=0)
    model.save(folder / "model.keras")
    x, y = data.x_test[:images], data.y_test[:images]
    np.savez(folder / "data.npz", x=x, y=y)


def work(what, folder, eps, workers, kept=None):
    """Do it; returns what came out, as plain values."""
    import keras
    import numpy as np

    from keras_qsn.certification import certify
    from keras_qsn.evaluation import evaluate_robustness

    model = keras.models.load_model(folder / "model.keras", compile=False)
    with np.load(folder / "data.npz") as data:
        x, y = data["x"], data["y"]
    kwargs = {"eps": eps, "workers": workers, "folder": kept}
    times = [time.perf_counter()]

    def progress(name, done, total):
        if name == "checks" and len(times) == 1:
            times.append(time.perf_counter())

    if what == "certify":
        found = certify(model, x, y, time_limit=600.0, **kwargs)
        answers = [found.status.tolist(), found.margin.tolist()]
    else:
        found = evaluate_robustness(
            model, x, y, plan=what, progress=progress, **kwargs
        )
        answers = [
            [(o.tried.tolist(), o.broken.tolist()) for o in found.outcomes],
            [float(o.x_adv.astype("float64").sum()) for o in found.outcomes],
            [(c.key, c.status) for c in found.checks],
        ]
    seconds = [t - times[0] for t in (*times[1:], time.perf_counter())]
    # Of its processes too, which have ended.
    used = sum(os.times()[:4])
    return {"seconds": seconds, "used": used, "answers": answers}


def started(options, folder, workers, out, kept):
    """The process of one run."""
    script = [sys.executable, __file__, "work", options.what, str(folder)]
    script += ["--workers", str(workers), "--eps", str(options.eps)]
    return subprocess.Popen(
        [*script, "--out", str(out)] + (["--kept", str(kept)] if kept else []),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def finished(options, folder, workers, kept=None):
    """What a whole run gives."""
    out = folder / "out.json"
    out.unlink(missing_ok=True)
    if started(options, folder, workers, out, kept).wait():
        raise RuntimeError(f"{options.what} with {workers} workers failed")
    return json.loads(out.read_text())


def timed(options, folder):
    what = options.what
    found, used = {1: [], 2: []}, {1: [], 2: []}
    answers = []
    for _ in range(options.repeats):
        for workers, runs in found.items():
            result = finished(options, folder, workers)
            runs.append(result["seconds"])
            used[workers].append(result["used"])
            answers.append(result["answers"])
    names = ["all"] if what == "certify" else ["attacks", "all"]
    for i, name in enumerate(names):
        one, two = (
            statistics.median(run[i] for run in runs) for runs in found.values()
        )
        print(
            f"{what}, {name}: {one:.1f} s, {two:.1f} s: {one / two:.2f} times"
        )
    one, two = map(statistics.median, used.values())
    print(
        f"{what}, processors at work, imports included: {one:.1f} s, "
        f"{two:.1f} s: {2 * one / two:.2f} times at best"
    )
    same = all(answer == answers[0] for answer in answers)
    print(f"{what}: {'the same answers' if same else 'ANSWERS DIFFER'}")


def children(pid):
    listed = subprocess.run(
        ["pgrep", "-P", str(pid), "-f", "spawn_main"],
        capture_output=True,
        text=True,
    )
    return [int(line) for line in listed.stdout.split()]


def ended(pids, seconds=60):
    """Wait for the workers of a run that is no more; one that starts only then
    has to import TensorFlow before it knows."""
    while left := [
        pid for pid in pids if pathlib.Path(f"/proc/{pid}").exists()
    ]:
        time.sleep(0.1)
        seconds -= 0.1
        if seconds < 0:
            raise RuntimeError(f"Workers {left} go on alone")


def killed(options, folder):
    """SIGKILL at random moments, of a worker and of the run in turn."""
    what, times = options.what, options.times
    wanted = finished(options, folder, 2)
    whole = max(wanted["seconds"]) + 15.0
    rng, bad, done = random.Random(0), 0, 0
    kept = folder / "kept"
    while done < times:
        shutil.rmtree(kept, ignore_errors=True)
        out = folder / "out.json"
        out.unlink(missing_ok=True)
        said = []
        run = None
        while not out.exists():
            if run is None or run.poll() is not None:
                run = started(options, folder, 2, out, kept)
            try:
                code = run.wait(rng.uniform(0, whole) if done < times else None)
                if code:
                    raise RuntimeError(f"{what} failed with {code}")
                continue
            except subprocess.TimeoutExpired:
                pass
            victims = children(run.pid)
            if done % 2 or not victims:
                os.kill(run.pid, signal.SIGKILL)
                said.append("run")
            else:
                os.kill(rng.choice(victims), signal.SIGKILL)
                said.append("worker")
            done += 1
            if said[-1] == "run":
                run.wait()
                ended(victims)
        same = json.loads(out.read_text())["answers"] == wanted["answers"]
        bad += not same
        print(f"{what}: killed {said}: {'same' if same else 'DIFFERS'}")
    print(f"{what}: {done} killed, {bad} runs with other answers")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("job", choices=("time", "kill", "work"))
    parser.add_argument("what", choices=("certify", "quick", "standard"))
    parser.add_argument("folder", nargs="?")
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--eps", type=float, default=0.1)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--out", type=pathlib.Path)
    parser.add_argument("--kept", type=pathlib.Path)
    options = parser.parse_args()
    if options.job == "work":
        folder = pathlib.Path(options.folder)
        found = work(
            *(options.what, folder, options.eps),
            *(options.workers, options.kept),
        )
        options.out.write_text(json.dumps(found))
        return
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        prepare(folder, options.images)
        if options.job == "time":
            timed(options, folder)
        else:
            killed(options, folder)


if __name__ == "__main__":
    main()
