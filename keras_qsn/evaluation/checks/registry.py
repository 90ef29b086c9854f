"""The register of checks: each one's number, name, and what it needs.

A check is a function of a `Probe` that returns a status, what was measured
and what that means, as text, registered by `@check(...)` above it.
"""

import dataclasses
import typing

from keras_qsn.evaluation.outcomes import Check


class Need(typing.NamedTuple):
    """What a check makes no sense without.

    Args:
        is_met: Function of a `Probe`.
        value: What stands where it is not met, in place of a measurement.
        meaning: Why, a sentence.
    """

    is_met: typing.Callable
    value: str
    meaning: str


IMAGES = Need(
    lambda probe: len(probe.numbers) > 0,
    "no image",
    "The model gets no image right.",
)
QUANTIZER = Need(
    lambda probe: probe.facts.quantized,
    "not applicable",
    "The model has no quantization layer.",
)
CERTAIN = Need(
    lambda probe: not probe.judge.is_random,
    "not applicable",
    "The model answers at random: what is there for one draw is not for the "
    "next.",
)
GRADIENT = Need(
    lambda probe: not probe.facts.answers_only,
    "not applicable",
    "Nothing is known of the model but its answers: there is no gradient to "
    "look at.",
)
REPEATABLE = Need(
    lambda probe: probe.repeats,
    "not applicable",
    "The model's draws cannot be repeated, since not all are of a "
    "`keras.random.SeedGenerator` of a layer: differences are those of chance.",
)


@dataclasses.dataclass(frozen=True)
class Entry:
    """A check of the register.

    Args:
        number: Its place in reports and in `docs/checks.rst`.
        key: Its name for programs and its section there; it never changes.
        name: Its name for people.
        function: From a `Probe` to status, value and meaning.
        needs: Each `Need` of it. Defaults to one image that is right.
        light: Whether it costs no more than a few passes over the images.
        own_gradient: Whether it is of the model's own gradient, or of who
            breaks what that hides.
    """

    number: int
    key: str
    name: str
    function: typing.Callable
    needs: tuple = (IMAGES,)
    light: bool = False
    own_gradient: bool = False

    def run(self, probe):
        """The `Check`."""
        probe.used.clear()
        needs = (*self.needs, *([GRADIENT] if self.own_gradient else []))
        unmet = (need for need in needs if not need.is_met(probe))
        need = next(unmet, None)
        if need is not None:
            measured = "none", need.value, need.meaning
        else:
            measured = self.function(probe)
        return self.result(*measured, ", ".join(probe.used))

    def result(self, status, value, meaning, attack):
        """The `Check` of a measurement."""
        return Check(
            self.number,
            self.key,
            self.name,
            status,
            value,
            meaning,
            attack,
            self.own_gradient,
        )


ENTRIES = {}


def check(number, key, name, **options):
    """Register the function below as an `Entry`."""

    def register(function):
        ENTRIES[key] = Entry(number, key, name, function, **options)
        return function

    return register
