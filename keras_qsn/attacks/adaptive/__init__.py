"""Attacks that know of the quantizer."""
