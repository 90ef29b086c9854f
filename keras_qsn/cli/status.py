"""Exit statuses, beside 0 for success."""

# An accuracy below what was asked for, or a part that failed.
BELOW = FAILED = 1
BAD_INPUT = 2
UNTRUSTED = 3
INTERRUPTED = 130
