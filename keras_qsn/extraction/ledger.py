"""Answers that were paid for: counted to the image, kept, never asked twice."""

import numpy as np
from scipy import special

from keras_qsn._core.kept import Folder
from keras_qsn.classifier.queries import QueryError

_SENT = "sent.json"
_TEST = "test.npz"


class Ledger:
    """Asks a victim within a budget, and keeps what it answers.

    An attack that is started again, from the same seed, asks for the same
    images in the same order; what stands in the ledger is then read, not sent.
    Where arithmetic makes of an image another one in its last digits, the
    image that was paid for takes its place.

    What is about to be sent is counted on disk first: after a kill, images
    whose answers did not arrive are taken for paid.

    Args:
        victim: The `Victim`.
        budget: Images that may be sent, those sent again included.
        answers: `"soft"`, probabilities, or `"hard"`, classes as one-hot rows.
        repeats: How often each image is asked for; the mean is the answer,
            or, of classes, the one given most often.
        folder: Path of the folder that keeps them; `None` keeps nothing.

    Attributes:
        queries: Images sent so far, as the attack that is at work knows it.
    """

    def __init__(self, victim, budget, answers, repeats, folder=None):
        self._victim = victim
        self._folder = Folder(folder)
        self._paid = victim.queries(budget, self._sending)
        self._paid.queries = (self._folder.get(_SENT) or {"queries": 0})[
            "queries"
        ]
        self._hard = answers == "hard"
        self._repeats = repeats
        self._batches = 0
        self._kept = self._folder.get(self._name())
        self.queries = 0

    @property
    def failures(self):
        """How many times each kind of failure was answered."""
        return dict(self._paid.failures)

    @property
    def left(self):
        """Images that the budget still allows for."""
        spent = self._paid.queries if self._kept is None else self.queries
        return (self._paid.budget - spent) // self._repeats

    def measured(self, x_test, more):
        """The victim's classes of images to measure on, asked once.

        Args:
            x_test: The images, which the budget does not count.
            more: Images that will be sent to measure later on.

        Raises:
            ValueError: If the victim has a budget that does not allow for all
                that is to come.
        """
        kept = self._folder.get(_TEST)
        more += 0 if kept else len(x_test)
        to_ask, left = self._paid.budget - self._paid.queries, self._victim.left
        if left is not None and left < to_ask + more:
            raise ValueError(
                "The victim's own budget must allow for the attack's "
                f"{to_ask:,} images and the {more:,} measured on. Received: "
                f"{left:,} images left."
            )
        if kept is None:
            kept = {"victim": self._victim.predict(x_test)}
            self._folder.put(_TEST, kept)
        return kept["victim"]

    def ask(self, x, progress=lambda queries: None):
        """What the victim says of images, of as many as can be paid.

        Args:
            x: Float32 array of images.
            progress: Function called with `queries` after each batch.

        Returns:
            The first of the images; and their answers, float32 of shape
            `(images, classes)`, whose rows sum to 1.

        Raises:
            QueryError: If images stay without an answer. All other answers
                are kept.
        """
        size = max(1, self._paid.batch_size // self._repeats)
        found = [self._unanswered(x[:0])]
        done = 0
        while done < len(x) and self.left:
            batch = self._kept or self._unanswered(
                x[done : done + min(size, self.left)]
            )
            done += len(batch["x"])
            found.append(self._completed(batch))
            self._batches += 1
            self._kept = self._folder.get(self._name())
            self.queries = int(found[-1]["queries"])
            progress(self.queries)
        return tuple(
            np.concatenate([batch[name] for batch in found])
            for name in ("x", "answers")
        )

    def _unanswered(self, x):
        answers = np.full((len(x), self._paid.num_classes), np.nan, "float32")
        return {"x": x, "answers": answers, "queries": np.array(0)}

    def _completed(self, batch):
        """A batch with all its answers, asked for where they are missing.

        Images that the budget no longer allows for are dropped.
        """
        while (rows := _missing(batch)).size:
            x, answers = batch["x"], batch["answers"]
            left = self._paid.budget - self._paid.queries
            paid, reason = rows[: left // self._repeats], ""
            if len(paid):
                scores, reason = self._paid.answered(
                    np.repeat(x[paid], self._repeats, axis=0)
                )
                scores = scores.reshape(len(paid), self._repeats, -1)
                answers[paid] = self._seen(scores)
            else:
                x, answers = (np.delete(a, rows, 0) for a in (x, answers))
            queries = np.array(self._paid.queries)
            batch = {"x": x, "answers": answers, "queries": queries}
            self._folder.put(self._name(), batch)
            # Not for want of money: each attempt failed.
            again = len(_missing(batch)) * self._repeats
            if reason and queries + again <= self._paid.budget:
                raise QueryError(reason)
        return batch

    def _seen(self, scores):
        """What the thief sees of scores `(images, repeats, classes)`."""
        if not self._hard:
            return special.softmax(scores, -1).mean(1)
        classes = np.arange(scores.shape[-1])
        votes = (scores.argmax(-1)[..., None] == classes).sum(1)
        seen = (votes.argmax(-1)[:, None] == classes).astype("float32")
        seen[np.isnan(scores).any((1, 2))] = np.nan
        return seen

    def _sending(self):
        self._folder.put(_SENT, {"queries": self._paid.queries})

    def _name(self):
        return f"answers-{self._batches:07d}.npz"


def _missing(batch):
    """Rows of a batch that have no answer."""
    return np.flatnonzero(np.isnan(batch["answers"]).any(1))
