"""How checks say what they found."""

# Half a point of accuracy.
HALF_POINT = 0.005

NOT_QUANTIZED = (
    "none",
    "not applicable",
    "The model has no quantization layer.",
)


def points(share):
    return f"{100 * share:.1f} %"


def listed(numbers):
    if not len(numbers):
        return ""
    more = ", ..." if len(numbers) > 10 else ""
    return f" ({', '.join(str(n) for n in numbers[:10])}{more})"


def graded(excess, count):
    """Within half a point, or one image of few, or more."""
    if excess <= HALF_POINT:
        return "pass"
    return "warn" if excess <= 1 / count + 1e-9 else "fail"
