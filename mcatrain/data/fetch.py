"""Find a published file in a data folder or download it once, and read it decompressed."""

from __future__ import annotations

import gzip
import lzma
import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from devicemodels.errors import InputError

#: Forms in which a file of a data folder may lie there, in the order they are looked for.
SUFFIXES = ("", ".gz", ".xz")
#: Remedy for a file whose content is wrong.
REPLACE = "replace it by a fresh copy of the published file"
_TIMEOUT_S = 30


@dataclass(frozen=True)
class Source:
    """Where a data set is published and what its files must be.

    folder: its folder in a data directory; mirrors: base URLs, tried in order; suffix: what the
    published files add to their standard names; sha256: hash of the published (compressed) file
    by standard name.
    """

    folder: str
    mirrors: tuple[str, ...]
    suffix: str
    sha256: Mapping[str, str]


def obtain(
    source: Source,
    name: str,
    data_dir: Path | str | None = None,
    mirror: str | None = None,
) -> Path:
    """Return the path of file ``name`` (its standard name) of a data set.

    data_dir (or MCATRAIN_DATA): folder that holds ``source.folder``. Where it is given, nothing
    is ever downloaded. mirror (or MCATRAIN_MIRROR): base URL laid out like a data_dir, used
    instead of the public ones. Raises InputError if the file is not there or cannot be had.
    """
    data_dir = data_dir or os.environ.get("MCATRAIN_DATA")
    if data_dir:
        return locate(Path(data_dir) / source.folder, name)
    return download(source, name, mirror or os.environ.get("MCATRAIN_MIRROR"))


def locate(folder: Path, name: str) -> Path:
    """Return the file ``name`` of ``folder``, plain or compressed. Raises InputError if absent."""
    for suffix in SUFFIXES:
        path = folder / f"{name}{suffix}"
        # os.path's form answers False, where Path's can raise, in a folder that may not be read.
        if os.path.isfile(path):
            return path
    raise InputError(
        f"{folder / name}: no such file, nor one with .gz or .xz: put it there, or name with "
        f"--data-dir or MCATRAIN_DATA the folder that holds {folder.name}/"
    )


def download(source: Source, name: str, mirror: str | None = None) -> Path:
    """Return the cached copy of a published file, fetched first if absent or altered.

    Raises InputError if no mirror gives a file with the published sha256.
    """
    import pooch  # here, because most commands never download

    file = f"{name}{source.suffix}"
    cache = Path(pooch.os_cache("mcatrain")) / source.folder
    bases = (f"{mirror.rstrip('/')}/{source.folder}",) if mirror else source.mirrors
    # identity: a server that adds its own compression would change the bytes that are hashed.
    fetch = pooch.HTTPDownloader(
        chunk_size=2**16, timeout=_TIMEOUT_S, headers={"Accept-Encoding": "identity"}
    )
    logger = pooch.get_logger()
    level = logger.level
    logger.setLevel("WARNING")  # a failure must stay one line on standard error
    failures = []
    try:
        for base in bases:
            url, known = f"{base}/{file}", f"sha256:{source.sha256[name]}"
            try:
                return Path(pooch.retrieve(url, known, fname=file, path=cache, downloader=fetch))
            except (OSError, ValueError) as error:
                failures.append(f"{base}: {_reason(error)}")
    finally:
        logger.setLevel(level)
    raise InputError(
        f"{file}: cannot download to {cache} ({'; '.join(failures)}): name with --data-dir or "
        f"MCATRAIN_DATA a folder that holds {source.folder}/{file}"
    )


def _reason(error: OSError | ValueError) -> str:
    """Say in a few words why a download failed; the errors of requests are OSErrors."""
    if getattr(error, "response", None) is not None:
        return f"HTTP status {error.response.status_code}"  # type: ignore[union-attr]
    if not isinstance(error, OSError):
        return "its sha256 is not that of the published file"
    return error.strerror or type(error).__name__


def read(path: Path) -> bytes:
    """Return the content of a file, decompressed as its suffix says.

    Raises InputError if it cannot be read or its stream is damaged or cut short.
    """
    try:
        if path.suffix == ".gz":
            return gzip.decompress(path.read_bytes())
        if path.suffix == ".xz":
            return lzma.decompress(path.read_bytes())
        return path.read_bytes()
    except (gzip.BadGzipFile, zlib.error, lzma.LZMAError, EOFError) as error:
        raise InputError(f"{path}: damaged {path.suffix[1:]} stream ({error}): {REPLACE}") from None
    except OSError as error:
        raise InputError(
            f"{path}: cannot read it: {error.strerror}: make the file readable"
        ) from None
