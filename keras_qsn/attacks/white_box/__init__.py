"""Attacks that know the network and its gradients."""
