"""Find a published file in a data folder or download it once, and read it decompressed."""

from __future__ import annotations

import gzip
import hashlib
import lzma
import os
import shutil
import tarfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

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
    published files add to their standard names; sha256: hash of the published file (compressed
    if suffix says so) by standard name; archive: the .tar.gz at the mirrors that holds the
    files, "" if they lie there one by one; tidy: applied to a file published plain before it is
    hashed, to undo what copies of it differ in.
    """

    folder: str
    mirrors: tuple[str, ...]
    suffix: str
    sha256: Mapping[str, str]
    archive: str = ""
    tidy: Callable[[bytes], bytes] | None = None


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
    folder = local_folder(source, data_dir)
    if folder:
        return locate(folder, name)
    return download(source, name, mirror or os.environ.get("MCATRAIN_MIRROR"))


def local_folder(source: Source, data_dir: Path | str | None = None) -> Path | None:
    """Return the folder of a data set in data_dir (or MCATRAIN_DATA), None if neither is given."""
    data_dir = data_dir or os.environ.get("MCATRAIN_DATA")
    return Path(data_dir) / source.folder if data_dir else None


def find(folder: Path, name: str) -> Path | None:
    """Return the file ``name`` of ``folder``, plain or compressed, None if absent."""
    for suffix in SUFFIXES:
        path = folder / f"{name}{suffix}"
        # os.path's form answers False, where Path's can raise, in a folder that may not be read.
        if os.path.isfile(path):
            return path
    return None


def locate(folder: Path, name: str) -> Path:
    """Return the file ``name`` of ``folder``, plain or compressed. Raises InputError if absent."""
    path = find(folder, name)
    if path is None:
        raise InputError(
            f"{folder / name}: no such file, nor one with .gz or .xz: put it there, or name with "
            f"--data-dir or MCATRAIN_DATA the folder that holds {folder.name}/"
        )
    return path


def download(source: Source, name: str, mirror: str | None = None) -> Path:
    """Return the cached copy of a published file, fetched first if absent or altered.

    A mirror holds single files, in any of SUFFIXES where the published one is plain; they are
    kept plain, as the hash is of the plain file. Raises InputError if no mirror gives a file
    with the published sha256.
    """
    import pooch  # here, because most commands never download

    cache = Path(pooch.os_cache("mcatrain")) / source.folder
    path = cache / f"{name}{source.suffix}"
    if _has(path, source.sha256[name]):
        return path
    if mirror:
        suffixes = (source.suffix,) if source.suffix else SUFFIXES
        urls = [f"{mirror.rstrip('/')}/{source.folder}/{name}{suffix}" for suffix in suffixes]
    else:
        urls = [f"{base}/{source.archive or path.name}" for base in source.mirrors]
    # identity: a server that adds its own compression would change the bytes that are hashed.
    fetch = pooch.HTTPDownloader(
        chunk_size=2**16, timeout=_TIMEOUT_S, headers={"Accept-Encoding": "identity"}
    )
    failures = []
    for url in urls:
        try:
            cache.mkdir(parents=True, exist_ok=True)
            # within the cache: files move from there to their place in one step
            with TemporaryDirectory(dir=cache) as scratch:
                fetched = Path(scratch) / url.rpartition("/")[2]
                fetch(url, fetched, None)
                if source.archive and not mirror:
                    ready = _unpacked(source, fetched)
                else:
                    ready = [_checked(source, name, fetched)]
                for file in ready:
                    os.replace(file, cache / file.name)
            return path
        except (OSError, ValueError) as error:
            failures.append(f"{url}: {_reason(error)}")
            if mirror and getattr(error, "response", None) is None:
                break  # the mirror answers nothing, or wrongly: another suffix will not help
    raise InputError(
        f"{path.name}: cannot download to {cache} ({'; '.join(failures)}): name with --data-dir "
        f"or MCATRAIN_DATA a folder that holds {source.folder}/{path.name}"
    )


def _has(path: Path, sha256: str) -> bool:
    """Say whether a file can be read and has this hash."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == sha256
    except OSError:
        return False


def _checked(source: Source, name: str, fetched: Path) -> Path:
    """Return a fetched file in its published form. Raises ValueError if its hash is wrong."""
    path = fetched.with_name(f"{name}{source.suffix}")
    if fetched != path or source.tidy:
        try:
            content = read(fetched)
        except InputError:  # it names the scratch folder, which is gone when a user reads it
            raise ValueError(f"its {fetched.suffix[1:]} stream is damaged") from None
        path.write_bytes(source.tidy(content) if source.tidy else content)
    if not _has(path, source.sha256[name]):
        raise ValueError("its sha256 is not that of the published file")
    return path


def _unpacked(source: Source, archive: Path) -> list[Path]:
    """Return all files of a data set, taken out of its archive and checked.

    Members are known by the last part of their paths alone and written under that name, so that
    an archive cannot name a place to write to. Raises ValueError for one damaged or incomplete.
    """
    found = set()
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                name = PurePosixPath(member.name).name
                content = tar.extractfile(member) if member.isfile() else None
                if name in source.sha256 and content:
                    with archive.with_name(name).open("wb") as file:
                        shutil.copyfileobj(content, file)
                    found.add(name)
    except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise ValueError(f"a damaged .tar.gz ({error})") from None
    for name in source.sha256:
        if name not in found:
            raise ValueError(f"{name} is not in it")
    return [_checked(source, name, archive.with_name(name)) for name in source.sha256]


def _reason(error: OSError | ValueError) -> str:
    """Say in a few words why a download failed; the errors of requests are OSErrors."""
    if getattr(error, "response", None) is not None:
        return f"HTTP status {error.response.status_code}"  # type: ignore[union-attr]
    if not isinstance(error, OSError):
        return " ".join(str(error).split())
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
