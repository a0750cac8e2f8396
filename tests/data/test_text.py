"""Texts have the published characters, in codes that decode to them; bad files are refused."""

import hashlib
import lzma
from pathlib import Path

import pytest
import torch

from devicemodels.errors import InputError
from mcatrain.data import TEXT_SETS, Text, load_text, text
from mcatrain.data.text import PTB, WARPEACE

REAL = Path(__file__).parents[3] / "shared" / "data"
PTB_ALPHABET = "\n #$&'*-./0123456789<>N\\abcdefghijklmnopqrstuvwxyz"
TRAIN = " #$&' *-./ 0123456789 \n <> N\\ abcdefghijklmnopqrstuvwxyz \n"
TEST = " a test \n"
#: 87 distinct bytes: 3 marking the byte order, 2 of a letter beyond ASCII, CR LF, a space, 79 more
NOVEL = b"\xef\xbb\xbf" + bytes(range(41, 120)) + b"\r\nna\xc3\xafve\r\nan end which is tested."


def stripped(words: str) -> str:
    """Return the characters of a text of the word level."""
    return "".join(line.strip() + "\n" for line in words.splitlines())


def spaced(characters: str) -> str:
    """Return characters in the form of the published files of the character level."""
    return "".join(f"{'_' if one == ' ' else one} " for one in characters)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder with tiny texts."""
    (tmp_path / "ptb").mkdir()
    (tmp_path / "charlm").mkdir()
    for part, words in (("train", TRAIN), ("test", TEST)):
        (tmp_path / "ptb" / f"ptb.{part}.txt").write_text(words)
        (tmp_path / "ptb" / f"ptb.char.{part}.txt").write_text(spaced(stripped(words)))
    (tmp_path / "charlm" / "warpeace_input.txt").write_bytes(NOVEL)
    monkeypatch.setattr(text, "_WARPEACE_TRAIN", len(NOVEL) - 10)
    monkeypatch.setattr(text, "_WARPEACE_TEST", 10)
    return tmp_path


def check(data: Text, characters: int) -> None:
    """Check what holds for every text."""
    for part in (data.train, data.test):
        assert part.dtype == torch.uint8
        assert part.ndim == 1
        assert part.is_contiguous()
        assert part.max() < characters
    assert len(data.vocabulary) == characters
    assert list(data.vocabulary) == sorted(set(data.vocabulary))
    used = set(data.train.unique().tolist()) | set(data.test.unique().tolist())
    assert used == set(range(characters))


def refused(folder: Path | None, *parts: str, name: str = "ptb", limit: int | None = None) -> None:
    """Check that loading fails in one line with these parts in it."""
    with pytest.raises(InputError) as caught:
        load_text(name, folder, limit)
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


def test_ptb_is_read_from_its_characters(folder: Path) -> None:
    for part in ("train", "test"):
        (folder / "ptb" / f"ptb.{part}.txt").write_text("not to be read")
    data = load_text("ptb", folder)
    check(data, 50)
    assert data.name == "ptb"
    assert "".join(data.vocabulary) == PTB_ALPHABET
    assert data.decode(data.train) == stripped(TRAIN)
    assert data.decode(data.test) == stripped(TEST) == "a test\n"


def test_ptb_is_derived_from_its_words(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = load_text("ptb", folder)
    for part in ("train", "test"):
        (folder / "ptb" / f"ptb.char.{part}.txt").unlink()
    monkeypatch.setenv("MCATRAIN_DATA", str(folder))
    derived = load_text("ptb")
    assert torch.equal(derived.train, whole.train)
    assert torch.equal(derived.test, whole.test)
    assert derived.vocabulary == whole.vocabulary


def test_last_space_may_be_missing(folder: Path) -> None:
    path = folder / "ptb" / "ptb.char.test.txt"
    path.write_text(path.read_text().removesuffix(" "))
    data = load_text("ptb", folder)
    assert data.decode(data.test) == "a test\n"


def test_warpeace_is_split_and_decoded(folder: Path) -> None:
    data = load_text("warpeace", folder)
    check(data, 87)
    assert data.decode(data.test) == "is tested."
    assert data.decode(data.train) == NOVEL[:-10].decode()
    codes = [data.vocabulary.index(one) for one in ("n", "\xc3", "a")]
    assert data.decode(codes) == "n\N{REPLACEMENT CHARACTER}a"  # half of a character of UTF-8
    with pytest.raises(IndexError):
        data.decode([87])


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
def test_warpeace_with_other_line_ends_is_the_same(folder: Path, end: bytes) -> None:
    whole = load_text("warpeace", folder)
    other = NOVEL.replace(b"\r\n", end) + 2 * end
    (folder / "charlm" / "warpeace_input.txt").write_bytes(other)
    data = load_text("warpeace", folder)
    assert torch.equal(data.train, whole.train)
    assert torch.equal(data.test, whole.test)


def test_train_limit_takes_the_first(folder: Path) -> None:
    whole, part = load_text("ptb", folder), load_text("ptb", folder, train_limit=3)
    assert torch.equal(part.train, whole.train[:3])
    assert part.train.untyped_storage().nbytes() == 3
    assert torch.equal(part.test, whole.test)
    assert part.vocabulary == whole.vocabulary
    size = len(whole.train)
    assert len(load_text("ptb", folder, train_limit=size).train) == size
    refused(folder, "--train-limit 0", "at least 1", limit=0)
    refused(folder, f"{size + 1}: ptb has {size} training characters", limit=size + 1)


def test_unknown_text_names_the_nearest() -> None:
    refused(None, "'warpiece'", "did you mean 'warpeace'?", *TEXT_SETS, name="warpiece")


CHARACTERS = spaced(stripped(TRAIN)).encode()
BAD_PTB = {
    "empty": (b"", "holds no text"),
    "spaces": (b"_ _ \n ", "holds no text"),
    "two characters": (b"a bc d ", "b'bc' at byte 2 is not one character and a space"),
    "two spaces": (b"a  b ", "b' b' at byte 2 is not one character"),
    "words": (TRAIN.encode(), "b' #' at byte 0"),
    "beyond ASCII": ("a é b ".encode(), r"b'\xc3\xa9' at byte 2"),
    "CR LF": (CHARACTERS.replace(b"\n", b"\r\n"), r"b'\r\n' at byte"),
}


@pytest.mark.parametrize("case", BAD_PTB)
def test_bad_characters_are_refused(folder: Path, case: str) -> None:
    content, problem = BAD_PTB[case]
    path = folder / "ptb" / "ptb.char.train.txt"
    path.write_bytes(content)
    refused(folder, f"{path}: ", problem, "replace it")


def test_missing_and_damaged_files_are_refused(folder: Path, tmp_path: Path) -> None:
    for name, lost in (("ptb", "ptb/ptb.train.txt"), ("warpeace", "charlm/warpeace_input.txt")):
        refused(tmp_path / "absent", f"absent/{lost}: no such file", "put it there", name=name)
    path = folder / "ptb" / "ptb.char.test.txt"
    path.with_name("ptb.char.test.txt.xz").write_bytes(lzma.compress(path.read_bytes())[:-9])
    path.unlink()
    refused(folder, f"{path}.xz: damaged xz")


def test_empty_words_are_refused(folder: Path) -> None:
    (folder / "ptb" / "ptb.char.test.txt").unlink()
    (folder / "ptb" / "ptb.test.txt").write_text(" \n \n")
    refused(folder, "ptb.test.txt: holds no text")


def test_another_alphabet_is_refused(folder: Path) -> None:
    (folder / "ptb" / "ptb.char.test.txt").write_text("a Q ")
    refused(folder, f"{folder}/ptb: has 51 distinct characters, the published text 50: replace")
    path = folder / "charlm" / "warpeace_input.txt"
    path.write_bytes(NOVEL.replace(b"\xef", b"i"))
    refused(folder, f"{path}: has 86 distinct", "the published text 87", name="warpeace")


def test_warpeace_of_another_size_is_refused(folder: Path) -> None:
    path = folder / "charlm" / "warpeace_input.txt"
    size = len(NOVEL)
    for content in (NOVEL[:-1], NOVEL + b"!", b""):
        path.write_bytes(content)
        refused(folder, f"{path}: holds {len(content)} bytes", f"text {size}: ", name="warpeace")


def real(name: str) -> Path:
    if not (REAL / name).is_dir():
        pytest.skip(f"the real {name} is not at ../shared/data")
    return REAL


def test_real_ptb(tmp_path: Path) -> None:
    folder = real("ptb")
    data = load_text("ptb", folder)
    check(data, 50)
    assert "".join(data.vocabulary) == PTB_ALPHABET
    assert (len(data.train), len(data.test)) == (5_017_482, 442_423)
    (tmp_path / "ptb").mkdir()
    for name, known in PTB.sha256.items():
        content = lzma.decompress((folder / "ptb" / f"{name}.xz").read_bytes())
        assert hashlib.sha256(content).hexdigest() == known
        (tmp_path / "ptb" / name).write_bytes(content)
    derived = load_text("ptb", tmp_path)
    assert torch.equal(derived.train, data.train)
    # and so the published file of characters follows from the words, byte for byte
    published = lzma.decompress((folder / "ptb" / "ptb.char.test.txt.xz").read_bytes())
    assert spaced(derived.decode(derived.test)).encode() == published


def test_real_warpeace() -> None:
    data = load_text("warpeace", real("charlm"))
    check(data, 87)
    assert (len(data.train), len(data.test)) == (2_933_246, 325_000)
    assert data.decode(data.train[:28]) == '\ufeff"Well, Prince, so Genoa a'
    symbols = "".join(data.vocabulary[code] for code in torch.cat((data.train, data.test)).tolist())
    content = symbols.encode("latin-1")
    assert hashlib.sha256(content).hexdigest() == WARPEACE.sha256["warpeace_input.txt"]
