"""Layers on analog arrays, and the conversion of a torch model to them."""
