"""Attacks that are told the class."""
