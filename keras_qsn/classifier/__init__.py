"""The contract with a model: what the library knows of a classifier."""
