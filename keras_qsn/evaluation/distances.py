"""The result of `minimal_distances`, attack by attack and image by image."""

import dataclasses

import numpy as np

from keras_qsn._core import display
from keras_qsn._core.shares import percent
from keras_qsn.evaluation.outcomes import Step

# A glance at the images: as many as stand side by side.
_SHOWN = 8


@dataclasses.dataclass(frozen=True, eq=False)
class Found:
    """What one attack found.

    Attributes:
        step: The `Step`.
        distances: Distance of the example it found of each image; infinite
            where it found none, 0 where the image is misclassified as it is.
        forward: Passes of one image through the network, a mean over all.
        backward: Passes back, likewise.
        seconds: Time it took.
    """

    step: Step
    distances: np.ndarray
    forward: float
    backward: float
    seconds: float


@dataclasses.dataclass(frozen=True, eq=False)
class MinimalDistances:
    """The result of `minimal_distances`.

    Attributes:
        settings: What was attacked, how: plain values.
        x: The images.
        y: Their classes.
        prediction: The classes the model gives them.
        x_adv: The nearest example of each; the image itself where there is
            none, or where none is needed.
        found: A list of `Found`, one for each attack of the plan.
    """

    settings: dict
    x: np.ndarray
    y: np.ndarray
    prediction: np.ndarray
    x_adv: np.ndarray
    found: list

    @property
    def best(self):
        """Of each image the smallest distance that any attack found."""
        return np.min([f.distances for f in self.found], axis=0)

    @property
    def median(self):
        """The median of `best` over the images that are classified right;
        infinite where most of them have no example."""
        return self._median(self.best)

    @property
    def medians(self):
        """The same of each attack alone, by its name."""
        return {f.step.name: self._median(f.distances) for f in self.found}

    @property
    def optimality(self):
        """How much of what all attacks find each finds alone, by its name.

        With `d` an attack's distances, `d*` the smallest of all attacks',
        both cut at the largest finite `d*`, `e`, and means over the images:

            mean(e - d) / mean(e - d*)

        1 where an attack is the best on every image (AttackBench's local
        optimality); 0 where it finds nothing.
        """
        best = self.best[self._right]
        finite = best[np.isfinite(best)]
        end = finite.max() if len(finite) else 0.0
        whole = (end - np.minimum(best, end)).sum()

        def share(distances):
            left = (end - np.minimum(distances[self._right], end)).sum()
            return float(left / whole) if whole else 1.0

        return {f.step.name: share(f.distances) for f in self.found}

    def accuracy(self, eps, name=None):
        """Share of images right and without an example within `eps`.

        Args:
            eps: Float >= 0, or an array of radii.
            name: Name of an attack. Defaults to `None`: all of them.

        Returns:
            A number, or an array of them.
        """
        far = self.best if name is None else self._named(name).distances
        # An image without an example is right at any radius; a wrong one
        # at none.
        return (far > np.asarray(eps)[..., None]).mean(-1)

    def curve(self, name=None):
        """The accuracy-distance curve: radii, and the accuracy left at each.

        Args:
            name: As for `accuracy`.

        Returns:
            Two arrays, the first of 0 and every distance found.
        """
        far = self.best if name is None else self._named(name).distances
        radii = np.unique(np.append(far[np.isfinite(far)], 0.0))
        return radii, self.accuracy(radii, name)

    def to_json(self):
        """Plain values, for `json.dumps`; an infinite distance is `None`.

        Returns:
            A dict of `settings`; `median`; `clean_accuracy`; `attacks`, a
            list of objects of `name`, `threat`, `attack`, `config`, `median`,
            `success` (of the images that are right, the share with an
            example), `optimality`, `forward`, `backward`, `seconds`; `curve`,
            `[radius, accuracy]` pairs; and `images`, a list of objects of
            `index`, `label`, `prediction`, `distance`, `found_by`, the names
            of the attacks that found it, and `distances`, by attack.
        """
        medians, optimality, best = self.medians, self.optimality, self.best
        right = max(int(self._right.sum()), 1)
        return {
            "settings": self.settings,
            "median": _plain(self.median),
            "clean_accuracy": float(self._right.mean()),
            "attacks": [
                {
                    **f.step.get_config(),
                    "median": _plain(medians[f.step.name]),
                    "success": float(
                        np.isfinite(f.distances[self._right]).sum() / right
                    ),
                    "optimality": optimality[f.step.name],
                    "forward": f.forward,
                    "backward": f.backward,
                    "seconds": f.seconds,
                }
                for f in self.found
            ],
            "curve": [list(map(float, pair)) for pair in zip(*self.curve())],
            "images": [
                {
                    "index": i,
                    "label": int(self.y[i]),
                    "prediction": int(self.prediction[i]),
                    "distance": _plain(best[i]),
                    "found_by": [
                        f.step.name
                        for f in self.found
                        if f.distances[i] == best[i] < np.inf
                    ],
                    "distances": {
                        f.step.name: _plain(f.distances[i]) for f in self.found
                    },
                }
                for i in range(len(self.y))
            ],
        }

    def to_dataframe(self):
        """A pandas `DataFrame` with a row for each image: its class, what the
        model says, the smallest distance, and that of each attack."""
        columns = {"label": self.y, "prediction": self.prediction}
        columns["distance"] = self.best
        columns |= {f.step.name: f.distances for f in self.found}
        return display.data_frame(columns)

    def _repr_html_(self):
        told = self.to_json()
        rows = [
            [
                attack["name"],
                f"{medians:.4g}",
                percent(attack["success"]),
                f"{attack['optimality']:.3f}",
                f"{attack['forward']:.0f} + {attack['backward']:.0f}",
            ]
            for attack, medians in zip(told["attacks"], self.medians.values())
        ]
        header = ["attack", "median", "finds", "optimality", "passes"]
        near = np.flatnonzero(self._right & np.isfinite(self.best))[:_SHOWN]
        shown = display.in_unit_range(self.x_adv[near]) if len(near) else []
        captions = (f"image {i}: {self.best[i]:.3g}" for i in near)
        return (
            display.html_paragraph(
                f"Of {len(self.y)} images, {percent(told['clean_accuracy'])} "
                f"right, the nearest example is at a median of "
                f"{self.median:.4g} (L{self.settings['norm']})."
            )
            + display.html_table(header, rows)
            + display.html_images(zip(captions, shown))
        )

    def __repr__(self):
        each = ", ".join(f"{k} {v:.4g}" for k, v in self.medians.items())
        return (
            f"MinimalDistances(L{self.settings['norm']}, {len(self.y)} images, "
            f"median {self.median:.4g}; {each})"
        )

    @property
    def _right(self):
        return self.prediction == self.y

    def _median(self, distances):
        right = distances[self._right]
        return float(np.median(right)) if len(right) else 0.0

    def _named(self, name):
        for found in self.found:
            if found.step.name == name:
                return found
        names = ", ".join(found.step.name for found in self.found)
        raise ValueError(f"`name` must be one of {names}. Received: {name!r}")


def _plain(number):
    return float(number) if np.isfinite(number) else None
