"""Exit statuses, beside 0 for success."""

# An accuracy below what was asked for, or a part that failed.
BELOW = FAILED = 1
BAD_INPUT = 2
UNTRUSTED = 3
INTERRUPTED = 130
# What shells say of a pipe whose reader has gone.
NO_READER = 141
