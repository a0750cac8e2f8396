"""Synapses: weights made of devices."""
