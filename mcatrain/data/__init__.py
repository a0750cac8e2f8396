"""Data sets as tensors: read from a folder, from the user's cache, or downloaded once."""

from mcatrain.data.images import IMAGE_SETS, Dataset, load_images
from mcatrain.data.text import TEXT_SETS, Text, load_text

__all__ = ["IMAGE_SETS", "TEXT_SETS", "Dataset", "Text", "load_images", "load_text"]
