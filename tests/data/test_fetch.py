"""Files are found in any form, downloaded once with their hash checked, refused if damaged."""

import gzip
import hashlib
import io
import logging
import lzma
import math
import struct
import tarfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from devicemodels.errors import InputError
from mcatrain.data import cifar, images, load_images, load_text, text
from mcatrain.data.fetch import Source, download, locate, obtain, read

CONTENT = b"some pixels" * 50
PUBLISHED = gzip.compress(CONTENT, mtime=0)
MODES = {"": bytes, ".gz": gzip.compress, ".xz": lzma.compress}


class Handler(SimpleHTTPRequestHandler):
    """Serves files silently and keeps what was asked for."""

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        super().do_GET()

    def log_message(self, *args: object) -> None:
        pass


class Site:
    """A web server on this machine; ``folder`` is what it serves."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=folder))
        self.server.asked = self.asked = []
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()

    def stop(self) -> None:
        if self.thread.is_alive():
            self.server.shutdown()
            self.thread.join()
            self.server.server_close()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    (tmp_path / "www" / "tiny").mkdir(parents=True)
    (tmp_path / "www" / "tiny" / "pixels.gz").write_bytes(PUBLISHED)
    site = Site(tmp_path / "www")
    yield site
    site.stop()


def tiny(*mirrors: str, sha256: str = "") -> Source:
    known = sha256 or hashlib.sha256(PUBLISHED).hexdigest()
    return Source("tiny", mirrors, ".gz", {"pixels": known})


def flipped(content: bytes, at: int) -> bytes:
    changed = bytearray(content)
    changed[at] ^= 0xFF
    return bytes(changed)


def refused(call: Callable[[], object], *parts: str) -> str:
    """Check that a call raises a one-line InputError with these parts in it."""
    with pytest.raises(InputError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message
    return message


@pytest.mark.parametrize("suffix", MODES)
def test_each_form_is_found_and_read(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"pixels{suffix}").write_bytes(MODES[suffix](CONTENT))
    path = locate(tmp_path, "pixels")
    assert path.name == f"pixels{suffix}"
    assert read(path) == CONTENT


def test_missing_file_names_it_and_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "pixels").mkdir()  # a folder of that name is no file
    refused(lambda: locate(tmp_path, "pixels"), f"{tmp_path}/pixels", "--data-dir", "MCATRAIN_DATA")
    refused(lambda: locate(tmp_path / "absent", "pixels"), f"{tmp_path}/absent/pixels")


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        pytest.param("pixels.gz", lambda good: CONTENT, id="not gz"),
        pytest.param("pixels.gz", lambda good: good[:-12], id="gz cut short"),
        pytest.param("pixels.gz", lambda good: good[:5], id="gz header cut short"),
        pytest.param("pixels.gz", lambda good: flipped(good, 12), id="gz byte changed"),
        pytest.param("pixels.gz", lambda good: flipped(good, -6), id="gz checksum changed"),
        pytest.param("pixels.gz", lambda good: good + b"more", id="gz with a tail"),
        pytest.param("pixels.xz", lambda good: CONTENT, id="not xz"),
        pytest.param("pixels.xz", lambda good: good[:-12], id="xz cut short"),
        pytest.param("pixels.xz", lambda good: flipped(good, 40), id="xz byte changed"),
        pytest.param("pixels.xz", lambda good: b"", id="empty xz"),
    ],
)
def test_damaged_stream_is_refused(
    tmp_path: Path, name: str, damage: Callable[[bytes], bytes]
) -> None:
    (tmp_path / name).write_bytes(damage(MODES[name[-3:]](CONTENT)))
    refused(lambda: read(tmp_path / name), f"{tmp_path}/{name}: damaged", "replace")


def test_unreadable_file_is_refused(tmp_path: Path) -> None:
    refused(lambda: read(tmp_path), f"{tmp_path}: cannot read it")


def test_data_dir_wins_over_environment_and_download(
    tmp_path: Path, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("given", "environment"):
        (tmp_path / folder / "tiny").mkdir(parents=True)
        (tmp_path / folder / "tiny" / "pixels").write_bytes(CONTENT)
    monkeypatch.setenv("MCATRAIN_DATA", str(tmp_path / "environment"))
    given = obtain(tiny(), "pixels", tmp_path / "given", site.url)
    assert given == tmp_path / "given" / "tiny" / "pixels"
    environment = obtain(tiny(), "pixels", None, site.url)
    assert environment == tmp_path / "environment" / "tiny" / "pixels"
    environment.unlink()
    refused(lambda: obtain(tiny(), "pixels", None, site.url), f"{environment}: no such file")
    assert site.asked == []


def test_download_happens_once(
    tmp_path: Path, site: Site, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MCATRAIN_DATA", "")  # empty is as good as unset
    monkeypatch.setenv("MCATRAIN_MIRROR", site.url + "/")
    path = obtain(tiny(), "pixels")
    assert path == tmp_path / "cache" / "mcatrain" / "tiny" / "pixels.gz"
    assert read(path) == CONTENT
    assert obtain(tiny(), "pixels") == path
    assert site.asked == ["/tiny/pixels.gz"]
    site.stop()
    assert obtain(tiny(), "pixels") == path  # no network needed any more
    assert [file.name for file in path.parent.iterdir()] == ["pixels.gz"]
    assert capfd.readouterr() == ("", "")


def test_mirrors_are_tried_in_order(site: Site) -> None:
    path = download(tiny(f"{site.url}/gone", f"{site.url}/tiny"), "pixels")
    assert read(path) == CONTENT
    assert site.asked == ["/gone/pixels.gz", "/tiny/pixels.gz"]


def test_altered_copy_in_the_cache_is_replaced(site: Site) -> None:
    path = download(tiny(f"{site.url}/tiny"), "pixels")
    path.write_bytes(b"altered")
    assert read(download(tiny(f"{site.url}/tiny"), "pixels")) == CONTENT
    assert len(site.asked) == 2


def test_wrong_hash_leaves_nothing_behind(tmp_path: Path, site: Site) -> None:
    source = tiny(f"{site.url}/tiny", sha256="0" * 64)
    refused(lambda: download(source, "pixels"), "pixels.gz", "sha256", site.url, "--data-dir")
    assert list((tmp_path / "cache" / "mcatrain" / "tiny").iterdir()) == []


def test_every_failed_mirror_is_named(site: Site, capfd: pytest.CaptureFixture[str]) -> None:
    level = logging.getLogger("pooch").level
    mirrors = (f"{site.url}/gone", "ftp://127.0.0.1/tiny", "nonsense")
    message = refused(lambda: download(tiny(*mirrors), "pixels"), "HTTP status 404", *mirrors)
    assert message.startswith("pixels.gz: cannot download")
    assert "--data-dir or MCATRAIN_DATA a folder that holds tiny/pixels.gz" in message
    assert capfd.readouterr() == ("", "")
    assert logging.getLogger("pooch").level == level


def test_no_network_is_refused(site: Site) -> None:
    site.stop()  # its port now refuses connections
    refused(lambda: obtain(tiny(), "pixels", mirror=site.url), "ConnectionError", "--data-dir")


def test_cache_that_cannot_be_written_is_refused(tmp_path: Path, site: Site) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    refused(lambda: download(tiny(f"{site.url}/tiny"), "pixels"), f"{tmp_path}/cache", "--data-dir")


def test_mnist_from_a_mirror(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole way: four files downloaded, checked, decompressed, parsed; then the cache."""
    (site.folder / "mnist").mkdir()
    known = {}
    for name in images.MNIST.sha256:
        shape = (3, 28, 28) if "images" in name else (3,)
        head = struct.pack(f">{1 + len(shape)}I", 0x0800 + len(shape), *shape)
        body = gzip.compress(head + bytes(i % 10 for i in range(math.prod(shape))))
        (site.folder / "mnist" / f"{name}.gz").write_bytes(body)
        known[name] = hashlib.sha256(body).hexdigest()
    refused(lambda: load_images("mnist", mirror=site.url), "its sha256 is not that")
    monkeypatch.setattr(images, "MNIST", replace(images.MNIST, sha256=known))
    data = load_images("mnist", mirror=site.url)
    assert data.train_y.tolist() == data.test_y.tolist() == [0, 1, 2]
    assert data.train_x.shape == (3, 784)
    site.stop()
    assert load_images("mnist", train_limit=2).train_y.tolist() == [0, 1]


PARTS = {"one.bin": b"first" * 99, "two.bin": b"second" * 99}


def packed(*members: tuple[str, bytes]) -> bytes:
    """Return a .tar.gz of these files, a folder and links of tempting names."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        for name, kind in (("set", tarfile.DIRTYPE), ("set/two.bin", tarfile.SYMTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/hostname"
            tar.addfile(info)
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def archived(site: Site, content: bytes) -> Source:
    (site.folder / "tiny" / "all.tar.gz").write_bytes(content)
    known = {name: hashlib.sha256(part).hexdigest() for name, part in PARTS.items()}
    return Source("tiny", (f"{site.url}/tiny",), "", known, archive="all.tar.gz")


def test_archive_is_fetched_once_and_unpacked_by_name(tmp_path: Path, site: Site) -> None:
    tempting = ("../../escaped.bin", b"x"), ("/tmp/../set/one.bin", PARTS["one.bin"])
    source = archived(site, packed(*tempting, ("set/two.bin", PARTS["two.bin"])))
    for name, content in PARTS.items():
        path = obtain(source, name)
        assert path == tmp_path / "cache" / "mcatrain" / "tiny" / name
        assert path.read_bytes() == content
    assert sorted(file.name for file in path.parent.iterdir()) == sorted(PARTS)
    assert not list(tmp_path.rglob("escaped*"))
    assert site.asked == ["/tiny/all.tar.gz"]


GOOD = packed(*PARTS.items())
BAD_ARCHIVES = {
    "not gz": (b"<html>", "a damaged .tar.gz"),
    "cut short": (GOOD[:-20], "a damaged .tar.gz"),
    "changed": (flipped(GOOD, len(GOOD) // 2), "a damaged .tar.gz"),
    "incomplete": (packed(("one.bin", PARTS["one.bin"])), "two.bin is not in it"),
    "other content": (packed(*PARTS.items(), ("one.bin", b"other")), "its sha256 is not that"),
}


@pytest.mark.parametrize("case", BAD_ARCHIVES)
def test_bad_archive_leaves_nothing_behind(tmp_path: Path, site: Site, case: str) -> None:
    content, problem = BAD_ARCHIVES[case]
    source = archived(site, content)
    refused(lambda: obtain(source, "one.bin"), "one.bin", f"{site.url}/tiny/all.tar.gz", problem)
    assert list((tmp_path / "cache" / "mcatrain" / "tiny").iterdir()) == []


@pytest.mark.parametrize("suffix", MODES)
def test_mirror_has_single_files_in_any_form(site: Site, suffix: str) -> None:
    source = archived(site, b"")
    (site.folder / "tiny" / f"one.bin{suffix}").write_bytes(MODES[suffix](PARTS["one.bin"]))
    path = obtain(source, "one.bin", mirror=site.url)
    assert path.name == "one.bin"
    assert path.read_bytes() == PARTS["one.bin"]
    assert site.asked[-1] == f"/tiny/one.bin{suffix}"


def test_damaged_form_on_a_mirror_is_refused(tmp_path: Path, site: Site) -> None:
    source = archived(site, b"")
    (site.folder / "tiny" / "one.bin.gz").write_bytes(b"no stream")
    get = partial(obtain, source, "one.bin", None, site.url)
    refused(get, "HTTP status 404", "one.bin.gz: its gz stream is damaged")
    assert list((tmp_path / "cache" / "mcatrain" / "tiny").iterdir()) == []
    site.stop()
    assert refused(get, "ConnectionError").count("ConnectionError") == 1


def test_file_is_tidied_before_it_is_hashed(site: Site) -> None:
    known = {"one.txt": hashlib.sha256(b"a b").hexdigest()}
    source = Source("tiny", (f"{site.url}/tiny",), "", known, tidy=bytes.strip)
    (site.folder / "tiny" / "one.txt").write_bytes(b" a b\n")
    assert obtain(source, "one.txt").read_bytes() == b"a b"
    site.stop()
    assert obtain(source, "one.txt").read_bytes() == b"a b"


def test_cifar10_from_its_archive(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    batches = {name: bytes([at]) * 3073 for at, name in enumerate(cifar.CIFAR10.sha256)}
    members = [(f"cifar-10-batches-bin/{name}", content) for name, content in batches.items()]
    (site.folder / "cifar-10-binary.tar.gz").write_bytes(packed(*members))
    monkeypatch.setattr(cifar, "_RECORDS", 1)
    monkeypatch.setattr(cifar, "CIFAR10", replace(cifar.CIFAR10, mirrors=(site.url,)))
    refused(lambda: load_images("cifar10"), "data_batch_1.bin", "its sha256 is not that")
    known = {name: hashlib.sha256(content).hexdigest() for name, content in batches.items()}
    monkeypatch.setattr(cifar, "CIFAR10", replace(cifar.CIFAR10, sha256=known))
    data = load_images("cifar10")
    assert data.train_y.tolist() == [0, 1, 2, 3, 4]
    assert data.test_y.tolist() == [5]
    assert site.asked == ["/cifar-10-binary.tar.gz"] * 2


def test_texts_from_their_sites(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    every = bytes(range(32, 81)) + b"\n"
    novel = bytes(range(32, 117)) * 2 + b"\nEnd."  # the line end counts twice: 87 characters
    files = {"ptb.train.txt": every, "ptb.test.txt": b" a \n", "warpeace_input.txt": novel + b"\n"}
    known = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    known["warpeace_input.txt"] = hashlib.sha256(novel.replace(b"\n", b"\r\n")).hexdigest()
    for name, content in files.items():
        (site.folder / name).write_bytes(content)
    for name, size in (("_PTB_CHARACTERS", 50), ("_WARPEACE_TRAIN", 170), ("_WARPEACE_TEST", 6)):
        monkeypatch.setattr(text, name, size)
    for name in ("PTB", "WARPEACE"):
        source = replace(getattr(text, name), mirrors=(site.url,), sha256=known)
        monkeypatch.setattr(text, name, source)
    files["ptb.test.txt"] = b"a\n"
    ptb, warpeace = load_text("ptb"), load_text("warpeace")
    assert ptb.decode(ptb.test) == "a\n"
    assert warpeace.decode(warpeace.test) == "\r\nEnd."
    assert site.asked == ["/ptb.train.txt", "/ptb.test.txt", "/warpeace_input.txt"]
