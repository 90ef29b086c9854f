"""The contract of every attack that copies a model."""

import time

from keras_qsn._core.config import Configured
from keras_qsn._core.config import plain
from keras_qsn._core.files import fingerprint
from keras_qsn._core.kept import work_folder
from keras_qsn._core.progress import Progress
from keras_qsn.extraction import metrics
from keras_qsn.extraction.given import check_pool
from keras_qsn.extraction.given import check_test
from keras_qsn.extraction.ledger import Ledger
from keras_qsn.extraction.result import ExtractionResult
from keras_qsn.extraction.teaching import Teaching
from keras_qsn.extraction.teaching import cross_entropy
from keras_qsn.extraction.thief import Thief
from keras_qsn.extraction.victim import Victim
from keras_qsn.extraction.victim import check_copy

ANSWERS = ("soft", "hard")


class ExtractionAttack(Configured):
    """Base class of attacks that copy a model by asking it.

    A subclass implements `_propose`: the next images to ask about, given what
    has been answered. The budget is then spent in `rounds` equal parts; after
    each the copy is taught all answers anew, and measured. Or it overrides
    `_steal`, which does this. What is asked goes through `Thief.ask`, so that
    no attack sends one image more than its `budget`.

    Attributes of the class say what others need to know of an attack:
    `needs_images`, whether it draws on images that it is given.

    Args:
        budget: Integer >= 1. Images that may be sent to the victim, those
            sent again after a failure included. Defaults to `10000`.
        answers: `"soft"`, the thief sees probabilities, or `"hard"`, classes
            alone. Defaults to `"soft"`.
        rounds: Integer >= 1. Equal parts in which the budget is spent.
            Defaults to `1`.
        repeats: Integer >= 1. How often each image is asked for: against
            answers drawn at random their mean, or the class given most often,
            is used. Defaults to `1`.
        epochs: Integer >= 1. Of teaching the copy. Defaults to `30`.
        batch_size: Integer >= 1. Of teaching. Defaults to `64`.
        learning_rate: Float > 0. Adam's; it falls to 0, as half a cosine, in
            the second half of the epochs. Defaults to `0.003`.
        clip_min: Smallest pixel value. Defaults to `0.0`.
        clip_max: Largest pixel value. Defaults to `1.0`.
        seed: Integer >= 0. Decides what is asked, and the order of teaching.

    Raises:
        TypeError: If a number is none.
        ValueError: If an argument is out of range.

    Example:

    >>> @keras.saving.register_keras_serializable("mine")
    ... class Noise(ExtractionAttack):
    ...     needs_images = False
    ...
    ...     def _propose(self, thief, count):
    ...         shape = (count, *thief.copy.input_shape)
    ...         return thief.rng.random(shape, "float32")
    >>> attack = Noise(budget=50, epochs=1, rounds=2)
    >>> x_test = np.full((2, 28, 28, 1), 0.5, "float32")
    >>> victim, copy = cleverhans_cnn(seed=0), substitute_mlp(seed=1)
    >>> result = attack.run(victim, copy, x_test=x_test, verbose=0)
    >>> [queries for queries, agreement in result.curve]
    [25, 50]

    Limitations:
        One attack gives a lower bound of what a thief can copy. Choose a
        copy, images and epochs that fit the victim before you believe a low
        agreement.
    """

    needs_images = True
    # What the copy is taught to lower: see `Teaching`.
    _loss = staticmethod(cross_entropy)
    _first = ("budget", "answers")

    def __init__(
        self,
        budget=10000,
        answers="soft",
        rounds=1,
        repeats=1,
        epochs=30,
        batch_size=64,
        learning_rate=0.003,
        clip_min=0.0,
        clip_max=1.0,
        seed=0,
    ):
        self._keep_counts(
            budget=budget,
            rounds=rounds,
            repeats=repeats,
            epochs=epochs,
            batch_size=batch_size,
        )
        if answers not in ANSWERS:
            raise ValueError(
                f"`answers` must be one of {', '.join(ANSWERS)}. "
                f"Received: answers={answers!r}"
            )
        self.answers = answers
        if budget < rounds * repeats:
            raise ValueError(
                "`budget` must allow for one image in each round. Received: "
                f"budget={budget}, rounds={rounds}, repeats={repeats}"
            )
        self._keep_positive(learning_rate=learning_rate)
        if not clip_min < clip_max:
            raise ValueError(
                "`clip_min` must be below `clip_max`. "
                f"Received: clip_min={clip_min}, clip_max={clip_max}"
            )
        self.clip_min, self.clip_max = float(clip_min), float(clip_max)
        self._keep_counts(0, seed=seed)

    def run(
        self,
        victim,
        copy,
        images=None,
        x_test=None,
        y_test=None,
        clean=None,
        adversary=None,
        folder=None,
        progress=None,
        verbose="auto",
    ):
        """Copy a model, and measure how well.

        `copy` is trained in place; if the run does not finish, it has the
        weights again that it came with. The images of `x_test` are sent to
        the victim too, to measure: outside of the budget, once.

        Args:
            victim: Keras classifier, `KerasModelWrapper`, or `QueryModel`.
            copy: Built Keras classifier, of the same images and classes, with
                the weights to start from.
            images: Images that the attack may ask about; a pair of those and
                their classes; or a batched `tf.data.Dataset`. Defaults to
                `None`, for attacks that make their own.
            x_test: Images to measure on, which the thief does not see.
            y_test: Their true classes. Defaults to `None`: no accuracies.
            clean: The victim without the defence of its answers, for
                `ExtractionResult.l1`. Defaults to `None`.
            adversary: Optional `keras_qsn.attacks.Attack`, run on the copy:
                `ExtractionResult.fooled` says how often the victim falls for
                what fools the copy.
            folder: Folder in which answers are kept, so that a run goes on
                after a kill: none is paid twice. Defaults to `None`.
            progress: Optional function called with what is at work, how much
                of it is done, and how much there is in all.
            verbose: `0`, `1` or `"auto"`: lines and bars never, always, or
                for what takes over a second. Defaults to `"auto"`.

        Returns:
            An `ExtractionResult`.

        Raises:
            QueryError: If the victim leaves an image without an answer.
            TypeError: If there is something else than models or images.
            ValueError: If victim, copy and images do not fit one another,
                the victim tells classes alone and `answers="soft"`, its own
                budget is too small, or the folder holds other work.
        """
        victim = Victim(victim)
        copy = check_copy(copy, victim)
        victim.check_answers(self.answers)
        images, labels = check_pool(self, images, copy)
        x_test, y_test = check_test(self, x_test, y_test, copy)
        metrics.check_adversary(adversary, copy)
        teaching = Teaching(
            copy, self.learning_rate, self.batch_size, self.seed, self._loss
        )
        started = time.perf_counter()
        try:
            told = self._told(victim, copy, images, x_test, folder)
            with work_folder(folder, told) as path:
                ledger = Ledger(
                    victim, self.budget, self.answers, self.repeats, path
                )
                fooling = metrics.fooling_images(x_test, adversary)
                truth = ledger.measured(x_test, fooling)
                thief = Thief(
                    self,
                    ledger,
                    copy,
                    teaching,
                    images,
                    labels,
                    lambda: metrics.agreement(copy, x_test, truth),
                    Progress(progress, verbose, unit="step"),
                )
                self._steal(thief)
        except BaseException:
            teaching.restart()
            raise
        if not thief.curve or thief.curve[-1][0] != thief.queries:
            thief.measure()
        return ExtractionResult(
            settings={
                "attack": type(self).__name__,
                "config": plain(self)["config"],
                "victim": victim.wrapper.model.name,
                "copy": copy.model.name,
                "classes": copy.num_classes,
                "images": None if images is None else len(images),
                "asked": thief.asked,
                "failures": ledger.failures,
                "seconds": time.perf_counter() - started,
            },
            queries=thief.queries,
            y=y_test,
            victim=truth,
            copy=copy.predict(x_test),
            curve=thief.curve,
            l1=metrics.answers_moved(clean, thief.x, thief.answers),
            fooled=metrics.fooled(adversary, copy, victim, x_test, truth),
        )

    def _told(self, victim, copy, images, x_test, folder):
        """What decides the images asked about, as plain values."""
        if folder is None:
            return None
        shape = x_test.shape[1:]
        return {
            "attack": plain(self),
            "victim": victim.told(shape),
            "copy": copy.fingerprint(shape),
            "images": None if images is None else fingerprint(images),
            "test": fingerprint(x_test),
        }

    def _steal(self, thief):
        """Spend the budget, and leave the copy taught."""
        for goal in self._goals(self.budget // self.repeats):
            count = min(goal - thief.asked, thief.left)
            x = self._propose(thief, count) if count > 0 else ()
            if not len(x):
                break
            thief.ask(x)
            thief.teach()
            thief.measure()

    def _goals(self, images):
        """How many images have been asked about after each round.

        Args:
            images: How many the budget allows for.
        """
        return [images * (n + 1) // self.rounds for n in range(self.rounds)]

    def _propose(self, thief, count):
        """The next images to ask about.

        Args:
            thief: The `Thief`, who knows all answers so far.
            count: How many at most.

        Returns:
            Array of images; of none, if there are no more.
        """
        raise TypeError(f"{type(self).__name__} does not implement `_propose`.")
