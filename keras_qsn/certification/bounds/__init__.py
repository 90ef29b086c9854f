"""Bounds of a whole network, made of those of its rules."""
