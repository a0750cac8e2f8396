"""The 1,797 digits (8x8) that come with scikit-learn, read without importing it: it takes seconds.

Source: Alpaydin and Kaynak 1998, doi:10.24432/C50P49 (its test part).
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from devicemodels.errors import InputError
from mcatrain.data.fetch import read

_FILE = "datasets/data/digits.csv.gz"
_EXAMPLES, _FEATURES = 1797, 64
#: Test examples of classes 0 to 9: a fifth of each, 360 in all.
_TEST = (36, 36, 35, 37, 36, 37, 36, 36, 35, 36)
#: Equal remainders of the classes' shares among which scikit-learn draws before it splits.
_TIES = (1, 2, 1, 2)
_SEED = 0

Part = tuple[NDArray[np.uint8], NDArray[np.uint8]]


def read_digits() -> tuple[Part, Part]:
    """Return (pixels, classes) for training, (1437, 64) and (1437,), and for test; pixels 0..16.

    The set itself has no split. This one is stratified by class, the one draw that scikit-learn's
    ``train_test_split(..., test_size=360, stratify=classes, random_state=0)`` makes. Raises
    InputError where the file is not as scikit-learn ships it.
    """
    spec = find_spec("sklearn")
    path = Path(((spec and spec.submodule_search_locations) or ["sklearn"])[0]) / _FILE
    try:
        lines = read(path).split() if path.exists() else []
        table = np.array([line.split(b",") for line in lines], np.uint8)
    except ValueError:  # rows of several lengths, or no numbers
        table = np.empty(0, np.uint8)
    if table.shape != (_EXAMPLES, _FEATURES + 1):
        raise InputError(
            f"{path}: is not the table of digits: install scikit-learn anew (pip install "
            "--force-reinstall scikit-learn)"
        )
    pixels, classes = table[:, :_FEATURES], table[:, _FEATURES]
    # Frozen by numpy: the split must never move, or results could not be compared.
    chance = np.random.RandomState(_SEED)
    for ties in _TIES:
        chance.permutation(ties)
    train: list[int] = []
    test: list[int] = []
    for digit, number in enumerate(_TEST):
        places = np.flatnonzero(classes == digit)
        mixed = places[chance.permutation(len(places))].tolist()
        train += mixed[:-number]
        test += mixed[-number:]
    one, two = chance.permutation(train), chance.permutation(test)
    return (pixels[one], classes[one]), (pixels[two], classes[two])
