"""Whether the attacks of an evaluation can be believed."""
