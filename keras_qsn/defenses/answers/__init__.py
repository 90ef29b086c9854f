"""Defences of a model's answers against who copies it by asking."""
