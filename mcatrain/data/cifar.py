"""CIFAR-10: 60,000 colour images of 32x32 pixels, from its binary or its Python batches."""

from __future__ import annotations

import io
import math
import pickle
from codecs import encode
from pathlib import Path
from typing import TypeGuard

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from devicemodels.errors import InputError
from mcatrain.data.fetch import REPLACE, Source, find, local_folder, obtain, read

#: Krizhevsky, Learning multiple layers of features from tiny images, tech. report, Toronto 2009.
#: The hashes are those of the unpacked binary batches.
CIFAR10 = Source(
    folder="cifar10",
    mirrors=("https://www.cs.toronto.edu/~kriz",),
    suffix="",
    sha256={
        "data_batch_1.bin": "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
        "data_batch_2.bin": "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
        "data_batch_3.bin": "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
        "data_batch_4.bin": "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
        "data_batch_5.bin": "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
        "test_batch.bin": "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",
    },
    archive="cifar-10-binary.tar.gz",
)
SHAPE = (3, 32, 32)
CLASSES = 10
_TRAIN_BATCHES = 5
_RECORDS = 10_000  # in a batch
_PIXELS = math.prod(SHAPE)
#: Folders, below that of the set, in which the batches of the Python version may lie.
_PICKLED = ("", "cifar-10-batches-py")


def _uint8(kind: bytes | str, *flags: object) -> np.dtype:
    """Return numpy's own uint8, which no pickle can alter, where a pickle asks for a dtype.

    A dtype of the pickle's own could be given a state that makes numpy take bytes for pointers.
    """
    if kind not in (b"u1", "u1"):
        raise TypeError("not an array of uint8")
    return np.dtype(np.uint8)


#: All that the pickle of a batch names: a numpy array and its bytes. None of it runs code or
#: opens a file. Where numpy keeps the first depends on its version, so an array is asked for it.
_REBUILD = np.empty(0).__reduce__()[0]
_NEEDED = {
    ("numpy.core.multiarray", "_reconstruct"): _REBUILD,
    ("numpy._core.multiarray", "_reconstruct"): _REBUILD,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): _uint8,
    ("_codecs", "encode"): encode,
}


def train_size() -> int:
    """Return the number of training examples of the whole set."""
    return _TRAIN_BATCHES * _RECORDS


def read_cifar10(
    data_dir: Path | str | None, mirror: str | None, train: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the first ``train`` (1..train_size()) training examples and all test examples.

    Pixels are float32 (n, 3072) in [0, 1], a row the red, green and blue planes in turn; classes
    are int64 (n,). Training batches that are not needed are not read. data_dir, mirror: see
    fetch.obtain. Raises InputError for a file that is missing or damaged.
    """
    names = [f"data_batch_{number}" for number in range(1, _TRAIN_BATCHES + 1)]
    needed = names[: math.ceil(train / _RECORDS)]
    train_x, train_y = _examples(needed, train, data_dir, mirror)
    test_x, test_y = _examples(["test_batch"], _RECORDS, data_dir, mirror)
    return train_x, train_y, test_x, test_y


def _examples(
    names: list[str], count: int, data_dir: Path | str | None, mirror: str | None
) -> tuple[Tensor, Tensor]:
    """Return the first ``count`` examples of some batches."""
    # filled batch by batch: the whole set as float32 is in memory once, no more
    pixels = np.empty((count, _PIXELS), np.float32)
    labels: list[int] = []
    for name in names:
        path = _path(name, data_dir, mirror)
        images, classes = _binary(path) if path.name.startswith(f"{name}.bin") else _pickled(path)
        for example, label in enumerate(classes):
            if not 0 <= label < CLASSES:
                raise InputError(
                    f"{path}: label {label} of example {example} is not in 0 to {CLASSES - 1}: "
                    f"{REPLACE}"
                )
        rows = pixels[len(labels) : len(labels) + _RECORDS]
        np.divide(images[: len(rows)], 255, out=rows, dtype=np.float32)
        labels += classes[: len(rows)]
    return torch.from_numpy(pixels), torch.tensor(labels, dtype=torch.int64)


def _path(name: str, data_dir: Path | str | None, mirror: str | None) -> Path:
    """Return the file of a batch: the binary one, else, in a data folder, the pickled one."""
    folder = local_folder(CIFAR10, data_dir)
    if folder and not find(folder, f"{name}.bin"):
        for below in _PICKLED:
            if path := find(folder / below, name):
                return path
    return obtain(CIFAR10, f"{name}.bin", data_dir, mirror)


def _binary(path: Path) -> tuple[NDArray[np.uint8], list[int]]:
    """Read a binary batch: records of one byte of class and 3,072 of pixels."""
    content = read(path)
    record = 1 + _PIXELS
    if len(content) != _RECORDS * record:
        raise InputError(
            f"{path}: holds {len(content):,} bytes, a batch of {_RECORDS:,} images 3x32x32 has "
            f"{_RECORDS * record:,}: {REPLACE}"
        )
    records = np.frombuffer(content, np.uint8).reshape(_RECORDS, record)
    return records[:, 1:], records[:, 0].tolist()


class _BatchUnpickler(pickle.Unpickler):
    """Reads the pickle of a batch and refuses any that names more than a numpy array needs."""

    def __init__(self, path: Path, content: bytes) -> None:
        super().__init__(io.BytesIO(content), encoding="bytes")  # Python 2 wrote the batches
        self._path = path

    def find_class(self, module: str, name: str) -> object:
        if (module, name) not in _NEEDED:
            raise InputError(
                f"{self._path}: its pickle asks for {f'{module}.{name}'!r}, which no CIFAR-10 "
                f"batch needs, and was not run: {REPLACE}"
            )
        return _NEEDED[module, name]


def _pickled(path: Path) -> tuple[NDArray[np.uint8], list[int]]:
    """Read a batch of the Python version: a dict with b"data" (n, 3072) and b"labels"."""
    content = read(path)
    try:
        batch = _BatchUnpickler(path, content).load()
    except InputError:
        raise
    except Exception as error:  # a damaged pickle raises almost anything
        raise InputError(
            f"{path}: not a pickled CIFAR-10 batch ({type(error).__name__}): {REPLACE}"
        ) from None
    pixels, labels = (
        (batch.get(b"data"), batch.get(b"labels")) if isinstance(batch, dict) else (None, None)
    )
    if not isinstance(pixels, np.ndarray) or not _are_integers(labels):
        raise InputError(f"{path}: holds no array b'data' and list of classes b'labels': {REPLACE}")
    if pixels.dtype != np.uint8 or pixels.shape != (_RECORDS, _PIXELS):
        raise InputError(
            f"{path}: its images are {pixels.dtype} {pixels.shape}, those of a CIFAR-10 batch "
            f"uint8 {(_RECORDS, _PIXELS)}: {REPLACE}"
        )
    if len(labels) != _RECORDS:
        raise InputError(f"{path}: {len(labels):,} labels for {_RECORDS:,} images: {REPLACE}")
    return pixels, labels


def _are_integers(labels: object) -> TypeGuard[list[int]]:
    return isinstance(labels, list) and all(type(label) is int for label in labels)
