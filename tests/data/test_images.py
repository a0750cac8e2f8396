"""Image sets have the documented shapes and ranges; malformed files are refused in one line."""

import gzip
import hashlib
import lzma
import struct
from importlib.machinery import ModuleSpec
from pathlib import Path

import numpy as np
import pytest
import torch

from devicemodels.errors import InputError
from mcatrain.data import IMAGE_SETS, Dataset, digits, load_images
from mcatrain.data.images import MNIST

REAL = Path(__file__).parents[3] / "shared" / "data"
TRAIN, TEST = 7, 4
DIGITS_SHA256 = "e2473b2a502800d829a48a366e6ef6870f696e1c687b2f419fc9ce6d6124b1a8"


def idx(array: np.ndarray, magic: int | None = None) -> bytes:
    """Return an array of bytes in IDX form, with a wrong magic number if one is given."""
    magic = 0x0800 + array.ndim if magic is None else magic
    return struct.pack(f">{1 + array.ndim}I", magic, *array.shape) + array.tobytes()


def images(count: int, side: int = 28) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, side, side), np.uint8)


def labels(count: int) -> np.ndarray:
    return (np.arange(count) * 3 % 10).astype(np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data folder with a tiny MNIST, one file in each of the three forms."""
    mnist = tmp_path / "mnist"
    mnist.mkdir()
    (mnist / "train-images-idx3-ubyte").write_bytes(idx(images(TRAIN)))
    (mnist / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels(TRAIN))))
    (mnist / "t10k-images-idx3-ubyte.xz").write_bytes(lzma.compress(idx(images(TEST))))
    (mnist / "t10k-labels-idx1-ubyte").write_bytes(idx(labels(TEST)))
    return tmp_path


def check(data: Dataset, train: int, test: int, features: int) -> None:
    """Check what holds for every set."""
    for x, y, count in ((data.train_x, data.train_y, train), (data.test_x, data.test_y, test)):
        assert x.shape == (count, features)
        assert x.dtype == torch.float32
        assert x.is_contiguous()
        assert 0 <= x.min() < x.max() <= 1
        assert y.shape == (count,)
        assert y.dtype == torch.int64
        assert 0 <= y.min() <= y.max() < data.classes
    assert int(np.prod(data.image_shape)) == features


def test_digits_split() -> None:
    data = load_images("digits")
    check(data, 1437, 360, 64)
    assert (data.name, data.classes, data.image_shape) == ("digits", 10, (1, 8, 8))
    assert data.train_x.max() == 1
    # stratified: a class has the same share, to one example, of both parts
    total = torch.bincount(torch.cat((data.train_y, data.test_y)))
    assert (torch.bincount(data.test_y) - total * 360 / 1797).abs().max() < 1


def test_digits_split_is_the_documented_one() -> None:
    """Results are comparable between machines only if the split never moves."""
    data = load_images("digits")
    pixels = torch.cat((data.train_x, data.test_x)).mul(16).byte().numpy().tobytes()
    classes = torch.cat((data.train_y, data.test_y)).byte().numpy().tobytes()
    assert hashlib.sha256(pixels + classes).hexdigest() == DIGITS_SHA256


def test_digits_are_scikit_learns_own_split() -> None:
    """Read without scikit-learn, and yet what its loader and its split gave, to the bit."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    bunch = load_digits()
    parts = train_test_split(
        bunch.data, bunch.target, test_size=360, stratify=bunch.target, random_state=0
    )
    data = load_images("digits")
    for mine, theirs in zip((data.train_x, data.test_x), parts[:2], strict=True):
        assert torch.equal(mine, torch.from_numpy(theirs.astype(np.float32)) / 16)
    for mine, theirs in zip((data.train_y, data.test_y), parts[2:], strict=True):
        assert torch.equal(mine, torch.from_numpy(theirs))


@pytest.mark.parametrize("content", [None, b"", b"1,2,3\n4\n", b"x," * 64 + b"x\n"])
def test_digits_that_are_missing_or_damaged(
    content: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = tmp_path / "datasets" / "data" / "digits.csv.gz"
    where.parent.mkdir(parents=True)
    if content is not None:
        where.write_bytes(gzip.compress(content))
    spec = ModuleSpec("sklearn", None, is_package=True)
    spec.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr(digits, "find_spec", lambda _: spec)
    refused(None, f"{where}: ", "install scikit-learn anew", name="digits")


def test_mnist_reads_each_form(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = load_images("mnist", folder)
    check(data, TRAIN, TEST, 784)
    assert (data.name, data.classes, data.image_shape) == ("mnist", 10, (1, 28, 28))
    expected = torch.from_numpy(images(TRAIN).reshape(TRAIN, 784) / 255)
    torch.testing.assert_close(data.train_x.double(), expected, rtol=0, atol=1e-7)
    assert data.test_y.tolist() == labels(TEST).tolist()
    monkeypatch.setenv("MCATRAIN_DATA", str(folder))
    assert torch.equal(load_images("mnist").train_x, data.train_x)


def test_train_limit_takes_the_first(folder: Path) -> None:
    whole, part = load_images("mnist", folder), load_images("mnist", folder, train_limit=3)
    check(part, 3, TEST, 784)
    assert torch.equal(part.train_x, whole.train_x[:3])
    assert torch.equal(part.train_y, whole.train_y[:3])
    assert part.train_x.untyped_storage().nbytes() == 3 * 784 * 4
    assert len(load_images("mnist", folder, train_limit=TRAIN).train_y) == TRAIN


def refused(folder: Path | None, *parts: str, name: str = "mnist", limit: int | None = None) -> str:
    """Check that loading fails in one line with these parts in it; return that line."""
    with pytest.raises(InputError) as caught:
        load_images(name, folder, limit)
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message
    return message


def test_train_limit_out_of_range(folder: Path) -> None:
    refused(folder, "--train-limit 0", "at least 1", limit=0)
    refused(folder, "--train-limit -3", limit=-3)
    refused(folder, "--train-limit 8", "has 7 training examples", limit=8)
    refused(None, "--train-limit 1438", "1437", name="digits", limit=1438)


def test_unknown_set_names_the_nearest() -> None:
    refused(None, "'mnits'", "did you mean 'mnist'?", *IMAGE_SETS, name="mnits")


IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
OUT_OF_RANGE = np.array([1, 2, 9, 10, 3, 200, 0], np.uint8)
MALFORMED = {
    "missing": (IMAGES, None, "no such file"),
    "empty": (IMAGES, b"", "empty"),
    "empty gz": (IMAGES + ".gz", b"", "empty"),
    "empty labels": (LABELS, b"", "empty"),
    "gz of nothing": (IMAGES + ".gz", gzip.compress(b""), "empty"),
    "not gz": (IMAGES + ".gz", idx(images(TRAIN)), "damaged gz"),
    "gz cut short": (IMAGES + ".gz", gzip.compress(idx(images(TRAIN)))[:-30], "damaged gz"),
    "not xz": (LABELS + ".xz", idx(labels(TRAIN)), "damaged xz"),
    "xz cut short": (LABELS + ".xz", lzma.compress(idx(labels(TRAIN)))[:-9], "damaged xz"),
    "text": (IMAGES, b"<html>not found</html>", "begins with bytes 3c 68 74 6d"),
    "one byte": (LABELS, b"\0", "begins with bytes 00,"),
    "labels as images": (IMAGES, idx(labels(TRAIN)), "begins with bytes 00 00 08 01"),
    "images as labels": (LABELS, idx(images(TRAIN)), "begins with bytes 00 00 08 03"),
    "float values": (IMAGES, idx(images(TRAIN), 0x0D03), "begins with bytes 00 00 0d 03"),
    "header cut short": (IMAGES, idx(images(TRAIN))[:11], "an IDX header has 16"),
    "values cut short": (IMAGES, idx(images(TRAIN))[:-1], "holds 5487 values"),
    "bytes too many": (LABELS, idx(labels(TRAIN)) + b"\0", "holds 8 values, its header says 7"),
    "huge header": (IMAGES, struct.pack(">4I", 0x803, *[2**32 - 1] * 3), "holds 0 values"),
    "no images": (IMAGES, idx(images(0)), "no examples"),
    "no labels": (LABELS, idx(labels(0)), "no examples"),
    "no pixels": (IMAGES, idx(images(TRAIN, side=0)), "no examples"),
    "small images": (IMAGES, idx(images(TRAIN, side=8)), "8x8, not 28x28"),
    "fewer labels": (LABELS, idx(labels(TRAIN - 1)), "6 labels for the 7 images"),
    "more labels": (LABELS, idx(labels(TRAIN + 1)), "8 labels for the 7 images"),
    "label out of range": (LABELS, idx(OUT_OF_RANGE), "label 10 of example 3"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_file_is_refused(folder: Path, case: str) -> None:
    name, content, problem = MALFORMED[case]
    for old in (folder / "mnist").glob(name.split(".")[0] + "*"):
        old.unlink()
    path = folder / "mnist" / name
    if content is not None:
        path.write_bytes(content)
    message = refused(folder, f"{path}: ", problem)
    assert any(remedy in message for remedy in ("put it there", "replace it", "take both files"))


def test_malformed_test_file_is_refused(folder: Path) -> None:
    path = folder / "mnist" / "t10k-labels-idx1-ubyte"
    path.write_bytes(idx(labels(TEST + 1)))
    refused(folder, f"{path}: 5 labels for the 4 images")


def test_data_dir_without_the_set(tmp_path: Path) -> None:
    refused(tmp_path / "absent", f"{tmp_path}/absent/mnist/train-images-idx3-ubyte", "--data-dir")
    (tmp_path / "file").write_bytes(b"")
    refused(tmp_path / "file", "no such file")


def test_published_hashes_are_complete() -> None:
    assert len(MNIST.sha256) == len(set(MNIST.sha256.values())) == 4
    assert all(len(bytes.fromhex(value)) == 32 for value in MNIST.sha256.values())


def test_real_mnist() -> None:
    if not (REAL / "mnist").is_dir():
        pytest.skip("the real MNIST is not at ../shared/data")
    for name, known in MNIST.sha256.items():
        file = REAL / "mnist" / f"{name}{MNIST.suffix}"
        if file.exists():
            assert hashlib.sha256(file.read_bytes()).hexdigest() == known
    data = load_images("mnist", REAL)
    check(data, 60_000, 10_000, 784)
    # mean and standard deviation of the training pixels, as commonly quoted
    assert float(data.train_x.mean()) == pytest.approx(0.1307, abs=5e-5)
    assert float(data.train_x.std()) == pytest.approx(0.3081, abs=5e-5)
    assert data.train_y[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert torch.bincount(data.test_y).tolist() == [
        980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009,
    ]  # fmt: skip
