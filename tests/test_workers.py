"""The same answers from several processes, whatever becomes of these."""

import concurrent.futures
import contextlib
import multiprocessing
import os
import pathlib
import pickle
import random
import signal
import subprocess
import sys
import threading
import time

import keras
import numpy as np
import pytest

from keras_qsn import attacks
from keras_qsn._core import pickles
from keras_qsn._core.executors import executor_of
from keras_qsn._core.executors import processes
from keras_qsn._core.pool import Pool
from keras_qsn._core.pool import work_off
from keras_qsn.certification import certify
from keras_qsn.certification import escalation
from keras_qsn.classifier.wrapper import KerasModelWrapper
from keras_qsn.evaluation import Step
from keras_qsn.evaluation import evaluate_robustness
from keras_qsn.evaluation import run
from keras_qsn.layers import ConstantQuantization

EPS = 0.1
# By each step of `plan`.
BROKEN = [15, 0, 2, 0, 0, 1, 0]


@pytest.fixture(scope="module")
def model():
    """Small, with weights of a seed."""
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            ConstantQuantization(3, hard=True),
            layers.Conv2D(4, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(3),
        ]
    )
    rng = np.random.default_rng(0)
    for variable in model.trainable_variables:
        variable.assign(rng.normal(0, 0.5, variable.shape))
    return model


@pytest.fixture(scope="module")
def images(model):
    x = np.random.default_rng(1).random((30, 6, 6, 1), "float32")
    y = np.asarray(model(x)).argmax(-1)
    # Some of them wrong.
    y[::7] = (y[::7] + 1) % 3
    return x, y


def plan(model):
    """Steps of few batches and of none, the first images only, random starts,
    another model."""
    twin = keras.models.clone_model(model)
    twin.set_weights([1.1 * weights for weights in model.get_weights()])
    return [
        Step("FGSM", "white-box", attacks.FastGradientMethod(EPS)),
        Step("first", "queries", attacks.SquareAttack(EPS, nb_queries=5), 5),
        attacks.ProjectedGradientDescent(EPS, nb_iter=3, seed=1),
        Step("none", "queries", attacks.SquareAttack(EPS, nb_queries=2), 0),
        attacks.TransferAttack(attacks.FastGradientMethod(EPS), twin),
        Step("cube", "adaptive", attacks.CubeAttack(EPS, nb_iter=3), 9),
        attacks.SquareAttack(EPS, nb_queries=10),
    ]


def evaluated(model, images, steps, **kwargs):
    kwargs = {"eps": EPS, "batch_size": 4, "checks": None} | kwargs
    return evaluate_robustness(model, *images, plan=steps, verbose=0, **kwargs)


def same_evaluation(found, wanted):
    assert len(found.outcomes) == len(wanted.outcomes)
    for one, other in zip(found.outcomes, wanted.outcomes):
        assert one.step.name == other.step.name and one.blind == other.blind
        np.testing.assert_array_equal(one.tried, other.tried)
        np.testing.assert_array_equal(one.broken, other.broken)
        np.testing.assert_array_equal(one.x_adv, other.x_adv)


def same_certificate(found, wanted):
    for name in ("status", "method", "margin", "undetermined"):
        np.testing.assert_array_equal(
            getattr(found, name), getattr(wanted, name)
        )
    assert {*found.counterexamples} == {*wanted.counterexamples}
    for i, image in wanted.counterexamples.items():
        np.testing.assert_array_equal(found.counterexamples[i], image)


@pytest.fixture(scope="module")
def evaluation(model, images):
    """What one process finds."""
    found = evaluated(model, images, plan(model))
    assert [len(outcome.broken) for outcome in found.outcomes] == BROKEN
    return found


@pytest.fixture(scope="module")
def certificate(model, images):
    """What one process proves."""
    return certified(model, images)


def certified(model, images, **kwargs):
    return certify(model, *images, EPS, batch_size=4, verbose=0, **kwargs)


class Died(Exception):
    """Of a process, so to say."""


@contextlib.contextmanager
def chaos(seed, deaths=0.3):
    """Units in threads, which end in any order, or not at all."""
    rng, lock = random.Random(seed), threading.Lock()

    def work(pause, dies, function, arguments):
        time.sleep(pause)
        with lock:
            result = pickles.call(function, *arguments)
        if dies:
            raise Died
        return result

    def submit(function, *arguments):
        fate = rng.uniform(0, 0.02), rng.random() < deaths
        return threads.submit(work, *fate, function, arguments)

    with concurrent.futures.ThreadPoolExecutor(3) as threads:
        yield Pool(3, submit, lambda value: value, (Died,))


@pytest.fixture
def in_chaos(monkeypatch):
    """Makes the argument `workers` the seed of chaos."""
    for module in ("evaluation.robustness", "certification.certifying"):
        monkeypatch.setattr(f"keras_qsn.{module}.executor_of", chaos)


@pytest.mark.parametrize("seed", range(2))
class TestWhateverEndsFirst:
    def test_an_evaluation_is_the_same(
        self, model, images, evaluation, in_chaos, seed
    ):
        found = evaluated(model, images, plan(model), workers=seed)
        same_evaluation(found, evaluation)

    def test_a_certificate_is_the_same(
        self, model, images, certificate, in_chaos, seed
    ):
        same_certificate(certified(model, images, workers=seed), certificate)

    def test_what_is_kept_is_not_done_again(
        self,
        model,
        images,
        evaluation,
        certificate,
        in_chaos,
        seed,
        tmp_path,
        monkeypatch,
    ):
        """Interrupted at any moment, several times."""
        monkeypatch.setattr(escalation, "_KEEP_AFTER", 0.0)
        rng, told = random.Random(seed), {"certificates": 0, "attacks": 0}

        def stop(name, done, total):
            told["certificates" if name == "certificates" else "attacks"] += 1
            if rng.random() < 0.05:
                raise KeyboardInterrupt

        works = {
            certified: (),
            evaluated: (plan(model),),
        }
        found = []
        for work, more in works.items():
            while True:
                try:
                    kwargs = {"folder": tmp_path / work.__name__}
                    kwargs |= {"progress": stop, "workers": seed}
                    found.append(work(model, images, *more, **kwargs))
                    break
                except KeyboardInterrupt:
                    pass
        same_certificate(found[0], certificate)
        same_evaluation(found[1], evaluation)
        assert told["certificates"] == len(images[1])
        again = certified(model, images, folder=tmp_path / "certified")
        np.testing.assert_array_equal(again.seconds, found[0].seconds)
        kept = sorted(p.name for p in (tmp_path / "evaluated").glob("attack*"))
        assert kept == [f"attack-{i}.npz" for i in range(7)]


class TestProcesses:
    """Real ones, and SIGKILL."""

    def test_a_worker_is_killed(self, model, images, evaluation, certificate):
        killed = []

        def kill(name, done, total):
            if name in ("certificates", "FGSM") and name not in killed:
                victim = multiprocessing.active_children()[0]
                os.kill(victim.pid, signal.SIGKILL)
                killed.append(name)

        kwargs = {"workers": 2, "progress": kill}
        same_certificate(certified(model, images, **kwargs), certificate)
        steps = plan(model)
        same_evaluation(evaluated(model, images, steps, **kwargs), evaluation)
        assert len(killed) == 2
        assert not multiprocessing.active_children()

    def test_the_run_is_killed(
        self, model, images, evaluation, tmp_path, monkeypatch
    ):
        """What goes on, in one process, has the same answers."""
        model.save(tmp_path / "model.keras")
        np.savez(tmp_path / "data.npz", x=images[0], y=images[1])
        (tmp_path / "run.py").write_text(KILLED)
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run(
            [sys.executable, "run.py"], env=environment, cwd=tmp_path
        )
        assert done.returncode == -signal.SIGKILL
        for pid in (tmp_path / "pids").read_text().split():
            until = time.time() + 20
            while pathlib.Path(f"/proc/{pid}").exists():
                assert time.time() < until, "goes on without its parent"
                time.sleep(0.1)
        kept = tmp_path / "kept"
        # Which three batches ended first is not told.
        before = {path.stem for path in kept.glob("attack-*-from-*.npz")}
        assert len(before) >= 3
        done, own = [], run.attack_batch

        def attack_batch(work, number, first, *args):
            done.append(f"attack-{number}-from-{first}")
            return own(work, number, first, *args)

        monkeypatch.setattr(run, "attack_batch", attack_batch)
        same_evaluation(
            evaluated(model, images, plan(model), folder=kept), evaluation
        )
        assert done
        assert not before & {*done}

    @pytest.mark.parametrize("where", [1, "ray"])
    def test_a_unit_is_run_again(self, where, tmp_path, monkeypatch):
        # Of Ray's workers, which do not ask their parent.
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        executor = executor_of("ray") if where == "ray" else processes(1)
        units, taken = [("a unit", dies_once, tmp_path / "began")], []
        with executor as pool:
            work_off(
                pool,
                lambda: units.pop() if units else None,
                lambda name, future: taken.append((name, future.result())),
            )
        assert taken == [("a unit", "done")]

    def test_ray(self, model, images, certificate):
        found = certified(model, images, workers="ray")
        same_certificate(found, certificate)

    def test_of_a_command(self, model, images, certificate, tmp_path):
        """They say nothing but what one process says."""
        model.save(tmp_path / "model.keras")
        x, y = images
        np.savez(tmp_path / "data.npz", x_test=x, y_test=y)
        words = "certify model.keras --data data.npz --workers 2".split()
        quiet = {k: v for k, v in os.environ.items() if "TF_CPP" not in k}
        done = subprocess.run(
            [sys.executable, "-m", "keras_qsn", *words, "--eps", str(EPS)],
            env={**quiet, "PYTHONPATH": os.pathsep.join(sys.path)},
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert done.stderr == ""
        share = f"{100 * certificate.certified_accuracy:.1f}"
        assert f"Certified accuracy {share}" in done.stdout


def dies_once(path):
    """In a process that has not found a file where it writes one."""
    if not path.exists():
        path.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "done"


KILLED = """
import multiprocessing, os, pathlib, signal
import keras, numpy as np
from keras_qsn import evaluation
from test_workers import EPS, plan

def progress(name, done, total):
    if done >= 12:
        pids = [child.pid for child in multiprocessing.active_children()]
        pathlib.Path("pids").write_text(" ".join(map(str, pids)))
        os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    model = keras.models.load_model("model.keras")
    data = np.load("data.npz")
    evaluation.evaluate_robustness(
        model, data["x"], data["y"], EPS, plan=plan(model), batch_size=4,
        checks=None, folder="kept", progress=progress, workers=2)
"""


class TestRefused:
    @pytest.mark.parametrize("workers", [0, -1, 1.5, None, [2]])
    def test_what_is_no_number_of_processes(self, model, images, workers):
        for work in (evaluated, certified):
            plans = [plan(model)] if work is evaluated else []
            with pytest.raises(
                (TypeError, ValueError), match="`workers`.*'ray'; or the addr"
            ):
                work(model, images, *plans, workers=workers)

    def test_an_address_where_nobody_answers(self, model, images):
        with pytest.raises(ValueError, match="no Ray cluster at nowhere:1"):
            certified(model, images, workers="nowhere:1")

    def test_ray_where_there_is_none(self, model, images, monkeypatch):
        monkeypatch.setitem(sys.modules, "ray", None)
        with pytest.raises(ImportError, match=r"pip install 'keras_qsn\[ray\]"):
            certified(model, images, workers="ray")

    def test_what_cannot_be_pickled(self, model, images):
        attack = attacks.FastGradientMethod(EPS, loss=lambda y, z: z[:, 0])
        with pytest.raises(ValueError, match="picklable.*<lambda>.*workers=1"):
            evaluated(model, images, [attack], workers=2)

    def test_what_another_process_does_not_know(self):
        content = pickle.dumps(Died).replace(b"Died", b"Dead")
        shared = pickles.Shared(content)
        with pytest.raises(ValueError, match="Dead.*notebook.*workers=1"):
            pickles.call(repr, shared)

    def test_a_model_that_forgets(self):
        """What its layer multiplies by is no weight, and in no config."""
        layer = Scaled()
        model = keras.Sequential([keras.Input((3,)), layer])
        layer.factor = 2.0
        content = pickle.dumps(KerasModelWrapper(model))
        with pytest.raises(ValueError, match="computes something else"):
            pickle.loads(content)

    def test_work_that_kills_every_process(self, model, images):
        with chaos(0, deaths=1.0) as pool:
            units, taken = [("one", abs, -2)], []
            work_off(
                pool,
                lambda: units.pop() if units else None,
                lambda name, future: taken.append(future.exception()),
            )
        (error,) = taken
        assert isinstance(error, RuntimeError)
        assert "3 times in a row" in str(error) and "__main__" in str(error)


class Mine(keras.losses.Loss):
    def call(self, y, p):
        return 0.0 * p


@keras.saving.register_keras_serializable("test_workers")
class Scaled(keras.layers.Layer):
    factor = 1.0

    def call(self, x):
        return self.factor * x


class TestModelsTravel:
    def test_with_the_logits_before_a_softmax(self):
        model = keras.Sequential(
            [keras.Input((3,)), keras.layers.Dense(4, activation="softmax")]
        )
        # A loss that no other process knows.
        model.compile("sgd", loss=Mine())
        wrapper = KerasModelWrapper(model)
        again = pickle.loads(pickle.dumps(wrapper))
        x = np.random.default_rng(0).random((5, 3), "float32")
        np.testing.assert_array_equal(again.logits(x), wrapper.logits(x))

    def test_where_the_user_says_that_it_has_logits(self):
        model = keras.Sequential(
            [keras.Input((3,)), keras.layers.Dense(4, activation="sigmoid")]
        )
        again = pickle.loads(pickle.dumps(KerasModelWrapper(model, True)))
        assert again.from_logits

    def test_with_lambdas_of_its_own(self):
        double = keras.layers.Lambda(lambda x: 2 * x)
        model = keras.Sequential(
            [keras.Input((3,)), double, keras.layers.Dense(4)]
        )
        again = pickle.loads(pickle.dumps(KerasModelWrapper(model)))
        x = np.ones((1, 3), "float32")
        np.testing.assert_array_equal(again.logits(x), model(x))
