"""What a certification returns, finished or interrupted."""

import dataclasses

import numpy as np

from keras_qsn._core import display
from keras_qsn._core.shares import percent

STATUSES = ("certified", "broken", "unknown", "misclassified")

# A glance at the images: as many as stand side by side.
_SHOWN = 8


@dataclasses.dataclass(frozen=True, eq=False)
class Certificate:
    """What was proved about each image, and what was not.

    Attributes:
        eps: Radius of the L-infinity ball.
        status: `"certified"` (every image of the ball gets the right class),
            `"broken"` (one that does not is in `counterexamples`),
            `"misclassified"` (the image itself gets a wrong class) or
            `"unknown"`; an array of strings, one for each image.
        method: What decided it: `"interval"`, `"crown"`, `"crown-full"`,
            `"branching"`, or `"model"` for a misclassified image; `""` if
            nothing did.
        margin: Lower bound, over the ball, of the right class's logit less
            the largest other one; `-inf` if there is none.
        undetermined: Number of values that the network behind the quantizer
            can see change.
        seconds: Time spent on each image.
        counterexamples: Dictionary from the position of a broken image to an
            image of its ball that the model misclassifies.

    Example:

    >>> certificate = Certificate(
    ...     0.1,
    ...     status=np.array(["certified", "unknown"]),
    ...     method=np.array(["crown", ""]),
    ...     margin=np.array([0.5, -0.1]),
    ...     undetermined=np.array([12, 40]),
    ...     seconds=np.array([0.1, 0.1]),
    ...     counterexamples={},
    ... )
    >>> certificate.certified_accuracy, certificate.clean_accuracy
    (0.5, 1.0)
    >>> certificate
    Certificate(eps=0.1, 2 images: 1 certified, 1 unknown)
    """

    eps: float
    status: np.ndarray
    method: np.ndarray
    margin: np.ndarray
    undetermined: np.ndarray
    seconds: np.ndarray
    counterexamples: dict

    def __len__(self):
        return len(self.status)

    @property
    def certified(self):
        """Whether each image is certified, boolean."""
        return self.status == "certified"

    @property
    def certified_accuracy(self):
        """Share of images that are certified: robust accuracy is no less."""
        return float(np.mean(self.certified))

    @property
    def clean_accuracy(self):
        """Share of images that the model classifies rightly."""
        return float(np.mean(self.status != "misclassified"))

    @property
    def possible_accuracy(self):
        """Share of images not known to be wrong or broken: the upper bound
        of robust accuracy to `certified_accuracy`, the lower one."""
        return float(np.mean(self.certified | (self.status == "unknown")))

    def to_dataframe(self):
        """A pandas `DataFrame` with a row for each image, without pixels."""
        return display.data_frame(arrays_of(self))

    def __repr__(self):
        counts = (
            f"{count} {status}" for status, count in self._counts() if count
        )
        return (
            f"{type(self).__name__}(eps={self.eps:g}, {len(self)} images: "
            f"{', '.join(counts) or 'none'})"
        )

    def _repr_html_(self):
        words = (
            f"Of {len(self)} images, L∞ {self.eps:g}: robust accuracy is at "
            f"least {percent(self.certified_accuracy)}, at most "
            f"{percent(self.possible_accuracy)}."
            if len(self)
            else "No image was judged."
        )
        rows = [
            [status, str(count), self._methods(status)]
            for status, count in self._counts()
        ]
        broken = [*self.counterexamples.items()][:_SHOWN]
        images = display.in_unit_range([x for _, x in broken]) if broken else []
        captions = (f"image {i}, broken" for i, _ in broken)
        return (
            display.html_paragraph(words)
            + display.html_table(["status", "images", "decided by"], rows)
            + display.html_images(zip(captions, images))
        )

    def _counts(self):
        return [(s, int(np.sum(self.status == s))) for s in STATUSES]

    def _methods(self, status):
        names, counts = np.unique(
            self.method[self.status == status], return_counts=True
        )
        return ", ".join(f"{n} {c}" for n, c in zip(names, counts) if n)

    def to_json(self):
        """Plain values, without the images of `counterexamples`.

        Returns:
            `eps`, `certified_accuracy`, `possible_accuracy`,
            `clean_accuracy`, and `images`: a list of `status`, `method`,
            `margin` (`None` if there is no bound), `undetermined` and
            `seconds` of each.
        """
        arrays = arrays_of(self)
        rows = zip(*(array.tolist() for array in arrays.values()))
        images = [dict(zip(arrays, row)) for row in rows]
        for image in images:
            if not np.isfinite(image["margin"]):
                image["margin"] = None
            image["seconds"] = round(image["seconds"], 4)
        return {
            "eps": self.eps,
            "certified_accuracy": self.certified_accuracy,
            "possible_accuracy": self.possible_accuracy,
            "clean_accuracy": self.clean_accuracy,
            "images": images,
        }


def arrays_of(certificate):
    """What a certificate says of each image: arrays by their names."""
    names = [field.name for field in dataclasses.fields(certificate)]
    return {name: getattr(certificate, name) for name in names[1:-1]}


class CertificationInterrupted(KeyboardInterrupt):
    """Ctrl-C during a certification.

    Attributes:
        certificate: `Certificate` of the images finished until then, the
            first of the input.

    Example:

    >>> nothing = Certificate(0.1, *[np.zeros(0)] * 5, {})
    >>> try:
    ...     raise CertificationInterrupted(nothing)
    ... except KeyboardInterrupt as interrupted:
    ...     print(interrupted)
    0 images were finished: `.certificate` holds them.
    """

    def __init__(self, certificate):
        super().__init__(
            f"{len(certificate)} images were finished: `.certificate` holds "
            "them."
        )
        self.certificate = certificate
