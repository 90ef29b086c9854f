"""Sort the tests into tiers by the time that they take.

    python3 -m pytest -n auto -m "" --durations 0 --durations-min 0 > times.txt
    python3 tests/benchmarks/tiers.py times.txt

Writes `tests/tiers/medium.txt` and `tests/tiers/slow.txt`: the test functions
whose cases take long, in the mean, on the machine that measured them.
"""

import collections
import pathlib
import re
import statistics
import sys

TIERS = pathlib.Path(__file__).parents[1] / "tiers"
# Seconds from which a test is of this tier.
LIMITS = {"medium": 0.5, "slow": 2.5}
_LINE = re.compile(r"([\d.]+)s call +(\S+?)(?:\[.*)?$")


def main(path):
    cases = collections.defaultdict(list)
    for line in pathlib.Path(path).read_text().splitlines():
        if found := _LINE.match(line):
            cases[found[2]].append(float(found[1]))
    means = {name: statistics.mean(times) for name, times in cases.items()}
    for tier, limit in LIMITS.items():
        above = [other for other in LIMITS.values() if other > limit]
        names = [
            name
            for name, seconds in means.items()
            if limit < seconds and all(seconds <= other for other in above)
        ]
        (TIERS / f"{tier}.txt").write_text("\n".join(sorted(names)) + "\n")
        print(f"{tier}: {len(names)} of {len(means)}")


if __name__ == "__main__":
    main(sys.argv[1])
