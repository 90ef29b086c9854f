"""What attackers know, and the names they count their steps by."""

THREATS = ("white-box", "adaptive", "transfer", "queries")

STEPS = ("nb_iter", "max_iter", "max_iterations", "num_iterations")
