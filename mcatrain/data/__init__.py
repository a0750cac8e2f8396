"""Data sets as tensors: read from a folder, from the user's cache, or downloaded once."""

from mcatrain.data.images import IMAGE_SETS, Dataset, load_images

__all__ = ["IMAGE_SETS", "Dataset", "load_images"]
