"""Sort the tests into tiers by the time that they take.

    python3 -m pytest -n auto -m "" --durations 0 --durations-min 0 > times.txt
    python3 tests/benchmarks/tiers.py times.txt

Writes `tests/tiers/medium.txt` and `tests/tiers/slow.txt`: the test functions
of which a case, in the mean, or all cases together take long on the machine
that measured them, fixtures included. What was not run stays where it is.
"""

import collections
import pathlib
import re
import statistics
import sys

TIERS = pathlib.Path(__file__).parents[1] / "tiers"
# Seconds of a case and of all cases from which a test is of this tier.
LIMITS = {"medium": (0.5, 5.0), "slow": (2.5, 10.0)}
_LINE = re.compile(r"([\d.]+)s (?:call|setup) +(\S+?)(\[.*)?$")


def times(lines):
    """Seconds of each case, by test function."""
    cases = collections.defaultdict(collections.Counter)
    for line in lines:
        if found := _LINE.match(line):
            cases[found[2]][found[3]] += float(found[1])
    return {name: [*seconds.values()] for name, seconds in cases.items()}


def tier_of(seconds):
    """The slowest tier of which a test has reached a limit."""
    fitting = [
        tier
        for tier, (case, together) in LIMITS.items()
        if statistics.mean(seconds) > case or sum(seconds) > together
    ]
    return fitting[-1] if fitting else "fast"


def main(path):
    tiers = {
        name: tier
        for tier in LIMITS
        for name in (TIERS / f"{tier}.txt").read_text().split()
    }
    measured = times(pathlib.Path(path).read_text().splitlines())
    tiers |= {name: tier_of(seconds) for name, seconds in measured.items()}
    for tier in LIMITS:
        names = sorted(name for name in tiers if tiers[name] == tier)
        (TIERS / f"{tier}.txt").write_text("\n".join(names) + "\n")
        print(f"{tier}: {len(names)}")


if __name__ == "__main__":
    main(sys.argv[1])
