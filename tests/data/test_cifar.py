"""CIFAR-10 is read from binary or Python batches; no pickle runs code; bad files are refused."""

import codecs
import gzip
import hashlib
import lzma
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from devicemodels.errors import InputError
from mcatrain.data import Dataset, cifar, load_images
from mcatrain.data.cifar import CIFAR10

REAL = Path(__file__).parents[3] / "shared" / "data"
RECORDS = 4
NAMES = [f"data_batch_{number}" for number in range(1, 6)] + ["test_batch"]


def pixels(name: str) -> np.ndarray:
    return np.random.default_rng(NAMES.index(name)).integers(0, 256, (RECORDS, 3072), np.uint8)


def labels(name: str) -> list[int]:
    return [(NAMES.index(name) + 3 * example) % 10 for example in range(RECORDS)]


def binary(name: str) -> bytes:
    return np.column_stack((np.array(labels(name), np.uint8), pixels(name))).tobytes()


def python2(name: str) -> bytes:
    """Return a pickle as Python 2 wrote it, as the published batches are."""
    shape = b"K" + bytes([RECORDS]) + b"M\x00\x0c\x86"
    state = b"(K\x03U\x01|NNN" + 2 * b"J\xff\xff\xff\xff" + b"K\x00tb"
    kind = b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R" + state
    data = pixels(name).tobytes()
    return b"".join(
        (
            b"\x80\x02}(U\x04datacnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n",
            b"K\x00\x85U\x01btR(K\x01" + shape + kind + b"\x89T" + struct.pack("<I", len(data)),
            data + b"tbU\x06labels](" + b"".join(b"K" + bytes([y]) for y in labels(name)) + b"eu.",
        )
    )


def python3(name: str, protocol: int = 2, **changes: object) -> bytes:
    """Return a pickle of the same content, or with entries changed, as Python 3 writes it."""
    batch = {"data": pixels(name), "labels": labels(name)} | changes
    return pickle.dumps({key.encode(): value for key, value in batch.items()}, protocol)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder with a tiny CIFAR-10, one batch compressed each way."""
    monkeypatch.setattr(cifar, "_RECORDS", RECORDS)
    (tmp_path / "cifar10").mkdir()
    for name in NAMES:
        (tmp_path / "cifar10" / f"{name}.bin").write_bytes(binary(name))
    for number, suffix, mode in ((2, ".gz", gzip), (3, ".xz", lzma)):
        plain = tmp_path / "cifar10" / f"data_batch_{number}.bin"
        plain.with_name(plain.name + suffix).write_bytes(mode.compress(plain.read_bytes()))
        plain.unlink()
    return tmp_path


@pytest.fixture
def pickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same as pickles of Python 2."""
    monkeypatch.setattr(cifar, "_RECORDS", RECORDS)
    (tmp_path / "cifar10").mkdir()
    for name in NAMES:
        (tmp_path / "cifar10" / name).write_bytes(python2(name))
    return tmp_path


def check(data: Dataset, train: int = 5 * RECORDS) -> None:
    """Check that data are the first so many examples, in order, and all of the test batch."""
    every = np.concatenate([pixels(name) for name in NAMES[:5]])[:train]
    assert (data.name, data.classes, data.image_shape) == ("cifar10", 10, (3, 32, 32))
    for x, y in ((data.train_x, data.train_y), (data.test_x, data.test_y)):
        assert (x.dtype, y.dtype) == (torch.float32, torch.int64)
        assert x.is_contiguous()
        assert x.untyped_storage().nbytes() == 4 * 3072 * len(y)
    for x, expected in ((data.train_x, every), (data.test_x, pixels("test_batch"))):
        torch.testing.assert_close(x.double(), torch.from_numpy(expected / 255), rtol=0, atol=1e-7)
    assert data.train_y.tolist() == [y for name in NAMES[:5] for y in labels(name)][:train]
    assert data.test_y.tolist() == labels("test_batch")


def refused(folder: Path, *parts: str, limit: int | None = None) -> None:
    """Check that loading fails in one line with these parts in it."""
    with pytest.raises(InputError) as caught:
        load_images("cifar10", folder, limit)
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


def test_binary_batches(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check(load_images("cifar10", folder))
    monkeypatch.setenv("MCATRAIN_DATA", str(folder))
    check(load_images("cifar10"))


@pytest.mark.parametrize("train", [1, RECORDS, RECORDS + 1, 5 * RECORDS])
def test_train_limit_reads_no_more_than_it_needs(folder: Path, train: int) -> None:
    for name in NAMES[-(-train // RECORDS) : 5]:
        for file in (folder / "cifar10").glob(f"{name}*"):
            file.unlink()
    check(load_images("cifar10", folder, train), train)


def test_train_limit_out_of_range(tmp_path: Path) -> None:
    """Before any file is looked for."""
    refused(tmp_path, "--train-limit 0", "at least 1", limit=0)
    refused(tmp_path, "--train-limit 50001", "cifar10 has 50000 training examples", limit=50_001)


@pytest.mark.parametrize("below", ["", "cifar-10-batches-py"])
@pytest.mark.parametrize(
    "written",
    [
        pytest.param(python2, id="Python 2"),
        pytest.param(lambda name: python3(name, 2), id="Python 3, protocol 2"),
        pytest.param(lambda name: python3(name, 4), id="Python 3, protocol 4"),
    ],
)
def test_pickled_batches(
    pickled: Path, below: str, written: Callable[[str], bytes], recwarn: pytest.WarningsRecorder
) -> None:
    for name in NAMES:
        (pickled / "cifar10" / name).unlink()
        path = pickled / "cifar10" / below / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(written(name))
    check(load_images("cifar10", pickled))
    assert not recwarn.list


def test_binary_batches_are_preferred(folder: Path) -> None:
    for name in NAMES:
        (folder / "cifar10" / name).write_bytes(b"no pickle")
    check(load_images("cifar10", folder))


BAD_BINARIES = {
    "missing": (None, "no such file"),
    "empty": (b"", "holds 0 bytes, a batch of 4 images 3x32x32 has 12,292"),
    "cut short": (binary("data_batch_2")[:-1], "holds 12,291 bytes"),
    "too long": (binary("data_batch_2") + b"\0", "holds 12,293 bytes"),
    "grey images": (bytes(RECORDS * 1025), "holds 4,100 bytes"),
    "label": (binary("data_batch_2")[:3073] + b"\x0a" + bytes(2 * 3073 + 3072), "label 10 of exam"),
}


@pytest.mark.parametrize("case", BAD_BINARIES)
def test_bad_binary_batch_is_refused(folder: Path, case: str) -> None:
    content, problem = BAD_BINARIES[case]
    (folder / "cifar10" / "data_batch_2.bin.gz").unlink()
    path = folder / "cifar10" / "data_batch_2.bin"
    if content is not None:
        path.write_bytes(content)
    refused(folder, f"{path}: ", problem, "put it there" if content is None else "replace it")


def test_cut_stream_is_refused(folder: Path) -> None:
    path = folder / "cifar10" / "data_batch_3.bin.xz"
    path.write_bytes(path.read_bytes()[:-20])
    refused(folder, f"{path}: damaged xz", "replace it")


class Runs:
    """Its pickle calls a function when it is read."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_malicious_pickle_does_not_run(pickled: Path, protocol: int) -> None:
    mark, path = pickled / "it ran", pickled / "cifar10" / "data_batch_2"
    for function, argument, name in (
        (os.mkdir, str(mark), f"{os.mkdir.__module__}.mkdir"),
        (eval, f"__import__('os').mkdir({str(mark)!r})", ".eval"),
        (np.memmap, str(mark), "memmap"),
    ):
        path.write_bytes(python3("data_batch_2", protocol, extra=Runs(function, argument)))
        refused(pickled, f"{path}: its pickle asks for", name, "was not run", "replace it")
        assert not mark.exists()


def test_pickle_cannot_alter_a_dtype(pickled: Path) -> None:
    """Flags that say an item is a pointer would have numpy follow bytes of the file."""
    path = pickled / "cifar10" / "test_batch"
    content = path.read_bytes()
    path.write_bytes(content.replace(b"\xff\xff\xff\xffK\x00tb", b"\xff\xff\xff\xffK\x3ftb"))
    assert path.read_bytes() != content
    check(load_images("cifar10", pickled))
    assert np.dtype(np.uint8).flags == 0


def test_attribute_of_what_is_allowed_is_refused(pickled: Path) -> None:
    """Protocol 4 can name attributes by a dotted path."""
    (pickled / "cifar10" / "test_batch").write_bytes(
        b"\x80\x04\x8c\x05numpy\x8c\x0endarray.tofile\x93."
    )
    refused(pickled, "test_batch: its pickle asks for 'numpy.ndarray.tofile'")


ONE = NAMES[0]
BAD_PICKLES = {
    "empty": (b"", "not a pickled CIFAR-10 batch (EOFError)"),
    "text": (b"<html>not found</html>", "not a pickled CIFAR-10 batch"),
    "cut short": (python2(ONE)[:-9], "not a pickled CIFAR-10 batch"),
    "bad array": (pickle.dumps(Runs(codecs.encode, "a", "no codec")), "(LookupError)"),
    "no dict": (pickle.dumps([1, 2]), "holds no array b'data' and list"),
    "no array": (python3(ONE, data=[1]), "holds no array b'data' and list"),
    "no labels": (python3(ONE, labels=None), "holds no array b'data' and list"),
    "labels of text": (python3(ONE, labels=["cat"] * 4), "holds no array b'data' and list"),
    "float": (python3(ONE, data=np.zeros((4, 3072))), "not a pickled CIFAR-10 batch (TypeError)"),
    "objects": (python3(ONE, data=np.array([None])), "not a pickled CIFAR-10 batch (TypeError)"),
    "grey": (python3(ONE, data=np.zeros((4, 1024), np.uint8)), "images are uint8 (4, 1024)"),
    "fewer": (python3(ONE, data=pixels(ONE)[:3]), "images are uint8 (3, 3072)"),
    "fewer labels": (python3(ONE, labels=[1, 2, 3]), "3 labels for 4 images"),
    "label": (python3(ONE, labels=[1, 2, 3, 10]), "label 10 of example 3 is not in 0 to 9"),
    "negative label": (python3(ONE, labels=[1, -1, 3, 10]), "label -1 of example 1"),
    "huge label": (python3(ONE, labels=[2**70] * 4), "of example 0 is not in 0 to 9"),
}


@pytest.mark.parametrize("case", BAD_PICKLES)
def test_bad_pickled_batch_is_refused(pickled: Path, case: str) -> None:
    content, problem = BAD_PICKLES[case]
    path = pickled / "cifar10" / ONE
    path.write_bytes(content)
    refused(pickled, f"{path}: ", problem, "replace it")


def test_real_cifar10() -> None:
    """One test, as loading takes ten seconds: also under xdist it is loaded once."""
    if not (REAL / "cifar10").is_dir():
        pytest.skip("the real CIFAR-10 is not at ../shared/data")
    data = load_images("cifar10", REAL)
    assert data.train_x.shape == (50_000, 3072)
    assert data.test_x.shape == (10_000, 3072)
    assert 0 == data.train_x.min() < data.train_x.max() == 1
    assert data.train_y[:10].tolist() == [6, 9, 9, 4, 1, 1, 2, 7, 8, 3]
    assert torch.bincount(data.train_y).tolist() == [5000] * 10
    assert torch.bincount(data.test_y).tolist() == [1000] * 10
    # mean of the training pixels by colour, as commonly quoted
    means = data.train_x.view(-1, 3, 1024).mean((0, 2))
    torch.testing.assert_close(means, torch.tensor([0.4914, 0.4822, 0.4465]), rtol=0, atol=1e-4)
    # every byte of the published batches can be had back from the tensors
    train = zip(data.train_x.split(10_000), data.train_y.split(10_000), strict=True)
    batches = [*train, (data.test_x, data.test_y)]
    for (x, y), known in zip(batches, CIFAR10.sha256.values(), strict=True):
        records = torch.cat((y[:, None].byte(), x.mul(255).round_().byte()), 1)
        assert hashlib.sha256(records.numpy().tobytes()).hexdigest() == known
