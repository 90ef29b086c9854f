"""Attacks that know another model."""
