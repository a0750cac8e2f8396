"""Image sets for classification: digits (8x8), MNIST (28x28, IDX files), CIFAR-10 (3x32x32)."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from devicemodels.errors import InputError, closest
from mcatrain.data import cifar
from mcatrain.data.digits import read_digits
from mcatrain.data.fetch import REPLACE, Source, obtain, read

#: LeCun et al., Proc. IEEE 86 (1998) 2278, doi:10.1109/5.726791.
MNIST = Source(
    folder="mnist",
    mirrors=(
        "https://ossci-datasets.s3.amazonaws.com/mnist",
        "https://storage.googleapis.com/cvdf-datasets/mnist",
    ),
    suffix=".gz",
    sha256={
        "train-images-idx3-ubyte": (
            "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"
        ),
        "train-labels-idx1-ubyte": (
            "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"
        ),
        "t10k-images-idx3-ubyte": (
            "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"
        ),
        "t10k-labels-idx1-ubyte": (
            "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"
        ),
    },
)
_MNIST_SIDE = 28
_CLASSES = 10
_IDX_BYTE = 0x08  # the IDX type code of unsigned bytes


@dataclass(frozen=True, eq=False)
class Dataset:
    """A classification set, split into training and test examples.

    train_x, test_x: pixels in [0, 1], float32, (n, features), rows flattened from
    ``image_shape`` (channels, height, width); train_y, test_y: class 0..classes-1, int64, (n,).
    """

    name: str
    train_x: Tensor
    train_y: Tensor
    test_x: Tensor
    test_y: Tensor
    classes: int
    image_shape: tuple[int, int, int]


def load_images(
    name: str,
    data_dir: Path | str | None = None,
    train_limit: int | None = None,
    mirror: str | None = None,
) -> Dataset:
    """Load the image set ``name``: one of IMAGE_SETS.

    data_dir, mirror: where files come from (see fetch.obtain); digits needs neither.
    train_limit: keep the first so many training examples. Raises InputError for an unknown
    name, a limit outside 1..training examples, a file that is missing or damaged.
    """
    if name not in _LOADERS:
        raise InputError(f"no image set {name!r}: {closest(name, _LOADERS)}")
    check_limit(train_limit)
    data = _LOADERS[name](data_dir, mirror, train_limit)
    size = len(data.train_y)
    if train_limit is None or train_limit == size:
        return data
    check_limit(train_limit, f"{name} has", size, "training examples")
    # clone: a view would keep the whole set in memory.
    return replace(
        data,
        train_x=data.train_x[:train_limit].clone(),
        train_y=data.train_y[:train_limit].clone(),
    )


def check_limit(limit: int | None, owner: str = "", size: int | None = None, of: str = "") -> None:
    """Check a train_limit. Raises InputError below 1, or above the ``size`` of what it limits.

    owner, of: the words before and after the size, where one is given.
    """
    if limit is None:
        return
    if limit < 1:
        raise InputError(f"--train-limit {limit}: give at least 1, or leave it out for all")
    if size is not None and limit > size:
        raise InputError(
            f"--train-limit {limit}: {owner} {size} {of}: give at most {size}, or leave it out "
            "for all"
        )


def _digits(data_dir: Path | str | None, mirror: str | None, limit: int | None) -> Dataset:
    train, test = read_digits()
    return Dataset("digits", *_tensors(*train, 16), *_tensors(*test, 16), _CLASSES, (1, 8, 8))


def _mnist(data_dir: Path | str | None, mirror: str | None, limit: int | None) -> Dataset:
    """Read the four IDX files of MNIST: 60,000 training and 10,000 test images, pixels 0..255."""
    parts: list[tuple[Tensor, Tensor]] = []
    for part in ("train", "t10k"):
        paths = [
            obtain(MNIST, f"{part}-{what}-ubyte", data_dir, mirror)
            for what in ("images-idx3", "labels-idx1")
        ]
        parts.append(_tensors(*_labelled_images(*paths), 255))
    train, test = parts
    return Dataset("mnist", *train, *test, _CLASSES, (1, _MNIST_SIDE, _MNIST_SIDE))


def _cifar10(data_dir: Path | str | None, mirror: str | None, limit: int | None) -> Dataset:
    """Read CIFAR-10: 50,000 training, or ``limit`` of them, and 10,000 test images."""
    size = cifar.train_size()
    check_limit(limit, "cifar10 has", size, "training examples")
    parts = cifar.read_cifar10(data_dir, mirror, limit or size)
    return Dataset("cifar10", *parts, cifar.CLASSES, cifar.SHAPE)


#: Image sets by name. A loader may leave the limit to load_images; it is for large sets.
_LOADERS: dict[str, Callable[[Path | str | None, str | None, int | None], Dataset]] = {
    "digits": _digits,
    "mnist": _mnist,
    "cifar10": _cifar10,
}
IMAGE_SETS = tuple(_LOADERS)


def _tensors(images: NDArray, labels: NDArray, full: int) -> tuple[Tensor, Tensor]:
    """Return pixels 0..full as float32 (n, features) in [0, 1], labels as int64 (n,)."""
    pixels = torch.from_numpy(images.reshape(len(images), -1).astype(np.float32))
    return pixels.div_(full), torch.from_numpy(labels.astype(np.int64))


def _labelled_images(images_path: Path, labels_path: Path) -> tuple[NDArray, NDArray]:
    """Read images (n, 28, 28) and labels (n,) and check that they belong together."""
    images = read_idx(images_path, 3)
    labels = read_idx(labels_path, 1)
    if images.shape[1:] != (_MNIST_SIDE, _MNIST_SIDE):
        size = "x".join(map(str, images.shape[1:]))
        raise InputError(
            f"{images_path}: images are {size}, not {_MNIST_SIDE}x{_MNIST_SIDE} pixels: {REPLACE}"
        )
    if len(images) != len(labels):
        raise InputError(
            f"{labels_path}: {len(labels)} labels for the {len(images)} images of "
            f"{images_path.name}: take both files from one copy of the set"
        )
    if labels.max() >= _CLASSES:
        first = int(np.argmax(labels >= _CLASSES))
        raise InputError(
            f"{labels_path}: label {labels[first]} of example {first} is not in 0 to "
            f"{_CLASSES - 1}: {REPLACE}"
        )
    return images, labels


def read_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """Return the array of an IDX file of unsigned bytes, plain, .gz or .xz; read-only.

    IDX: bytes 0, 0, type code, number of dimensions; each dimension as a big-endian uint32; the
    values, last dimension fastest. Raises InputError if the file is anything else.
    """
    content = read(path)
    header = 4 * (1 + dimensions)
    magic = bytes((0, 0, _IDX_BYTE, dimensions))
    if not content:
        raise InputError(f"{path}: the file is empty: {REPLACE}")
    if content[:4] != magic:
        raise InputError(
            f"{path}: begins with bytes {content[:4].hex(' ')}, an IDX file of {dimensions}-d "
            f"unsigned bytes with {magic.hex(' ')}: {REPLACE}"
        )
    if len(content) < header:
        raise InputError(
            f"{path}: cut short: {len(content)} bytes, an IDX header has {header}: {REPLACE}"
        )
    shape = struct.unpack_from(f">{dimensions}I", content, 4)
    if 0 in shape:
        raise InputError(f"{path}: holds no examples (shape {shape}): {REPLACE}")
    if len(content) - header != math.prod(shape):
        raise InputError(
            f"{path}: holds {len(content) - header} values, its header says {math.prod(shape)}: "
            f"{REPLACE}"
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)
