"""How checks grade and word what they measure."""

# Half a point of accuracy.
HALF_POINT = 0.005


def listed(numbers):
    """The first numbers of images, in brackets."""
    if not len(numbers):
        return ""
    more = ", ..." if len(numbers) > 10 else ""
    return f" ({', '.join(str(n) for n in numbers[:10])}{more})"


def graded(excess, count):
    """Within half a point, or one image of few, or more."""
    if excess <= HALF_POINT:
        return "pass"
    return "warn" if excess <= 1 / count + 1e-9 else "fail"
