"""Archives: nothing outside the folder, no links, no bombs, nothing unchecked, and whole or absent."""

import hashlib
import io
import tarfile
import zipfile

import pytest

from ltr.data.sources.archives import Archive, fetch, unpack
from ltr.errors import DataError

LIMITS = {"max_bytes": 10_000, "max_files": 5}


def tar_of(path, members, mode="w:gz"):
    """A tar of (name, content); content may be a TarInfo's type and link name instead."""
    with tarfile.open(path, mode) as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            if isinstance(content, tuple):
                info.type, info.linkname = content
                tar.addfile(info)
            else:
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return path


def zip_of(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            if isinstance(content, tuple):
                info = zipfile.ZipInfo(name)
                info.external_attr = 0o120777 << 16
                archive.writestr(info, content[1])
            else:
                archive.writestr(name, content)
    return path


MAKE = pytest.mark.parametrize(("make", "suffix"), [(tar_of, "tar.gz"), (zip_of, "zip")])


@MAKE
def test_extracted_files_equal_the_originals(tmp_path, make, suffix):
    members = [("set/a.txt", b"first"), ("set/deep/b.txt", b"second" * 100), ("c.txt", b"")]
    unpack(make(tmp_path / f"x.{suffix}", members), tmp_path / "out", **LIMITS)
    contents = {
        str(p.relative_to(tmp_path / "out")): p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file()
    }
    assert contents == dict(members)


@MAKE
@pytest.mark.parametrize("name", ["../evil.txt", "set/../../evil.txt", "/tmp/evil.txt", "..\\evil.txt", "C:/evil.txt"])
def test_an_entry_that_leaves_the_folder_is_refused(tmp_path, make, suffix, name):
    archive = make(tmp_path / f"x.{suffix}", [("fine.txt", b"x"), (name, b"evil")])
    with pytest.raises(DataError, match="leaves the folder"):
        unpack(archive, tmp_path / "deep" / "out", **LIMITS)
    assert not list(tmp_path.rglob("evil*"))


@MAKE
def test_a_link_is_refused(tmp_path, make, suffix):
    archive = make(tmp_path / f"x.{suffix}", [("link", (tarfile.SYMTYPE, "/etc"))])
    with pytest.raises(DataError, match="link"):
        unpack(archive, tmp_path / "out", **LIMITS)


@pytest.mark.parametrize("kind", [tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_a_hard_link_or_device_is_refused(tmp_path, kind):
    archive = tar_of(tmp_path / "x.tar", [("odd", (kind, "/etc/passwd"))], "w")
    with pytest.raises(DataError, match="link or a device"):
        unpack(archive, tmp_path / "out", **LIMITS)


def test_a_folder_that_is_a_link_already_does_not_lead_outside(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out" / "set").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="leaves the folder"):
        unpack(tar_of(tmp_path / "x.tar", [("set/a.txt", b"x")], "w"), tmp_path / "out", **LIMITS)
    assert not list((tmp_path / "elsewhere").iterdir())


@MAKE
def test_too_many_files_are_refused(tmp_path, make, suffix):
    archive = make(tmp_path / f"x.{suffix}", [(f"{n}.txt", b"x") for n in range(6)])
    with pytest.raises(DataError, match="more than the 5 files"):
        unpack(archive, tmp_path / "out", **LIMITS)


@MAKE
def test_too_many_bytes_are_refused_despite_the_sizes_in_the_archive(tmp_path, make, suffix):
    archive = make(tmp_path / f"x.{suffix}", [("bomb", bytes(20_000))])
    assert archive.stat().st_size < 1_000
    with pytest.raises(DataError, match="unpacked it has more than"):
        unpack(archive, tmp_path / "out", **LIMITS)


@MAKE
def test_a_truncated_archive_is_refused(tmp_path, make, suffix):
    archive = make(tmp_path / f"x.{suffix}", [("a", hashlib.sha512(b"1").digest() * 40)])
    archive.write_bytes(archive.read_bytes()[: archive.stat().st_size // 2])
    with pytest.raises(DataError, match="damaged or only half downloaded"):
        unpack(archive, tmp_path / "out", **LIMITS)


@pytest.fixture
def downloaded(tmp_path):
    """Make an archive that lies where a download puts it, and say what is published of it. There is no network."""

    def make(members, holds="set", md5=None):
        (tmp_path / "data").mkdir()
        file = tar_of(tmp_path / "data" / "x.tgz", members)
        return Archive("file:///nowhere/x.tgz", md5 or hashlib.md5(file.read_bytes()).hexdigest(), holds)

    return make


def test_an_archive_is_checked_and_unpacked(tmp_path, downloaded):
    fetch("tiny", downloaded([("set/a.txt", b"hello"), ("readme.txt", b"beside")]), tmp_path / "data")
    assert (tmp_path / "data" / "set" / "a.txt").read_bytes() == b"hello"
    assert (tmp_path / "data" / "readme.txt").is_file()


def test_an_existing_archive_is_not_downloaded_again(tmp_path):
    (tmp_path / "set").mkdir()
    fetch("tiny", Archive("file:///nowhere/x.tgz", "0" * 32, "set"), tmp_path)
    assert not list((tmp_path / "set").iterdir())


def test_another_checksum_is_refused_and_nothing_is_unpacked(tmp_path, downloaded):
    with pytest.raises(DataError, match=r"x\.tgz could not be downloaded from file:///nowhere"):
        fetch("tiny", downloaded([("set/a.txt", b"hello")], md5="0" * 32), tmp_path / "data")
    assert not (tmp_path / "data" / "set").exists()


def test_without_a_known_checksum_nothing_is_downloaded(tmp_path):
    with pytest.raises(DataError, match=r"no checksum of http://example\.org/x\.tgz is known"):
        fetch("tiny", Archive("http://example.org/x.tgz", None, "set"), tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_a_refused_archive_leaves_no_unpacked_folder(tmp_path, downloaded):
    with pytest.raises(DataError, match="leaves the folder"):
        fetch("tiny", downloaded([("set/a.txt", b"hello"), ("../evil", b"x")]), tmp_path / "data")
    assert not (tmp_path / "data" / "set").exists()
    assert not list((tmp_path / "data").glob("*unpacking*"))


def test_another_archive_of_the_right_checksum_is_named(tmp_path, downloaded):
    with pytest.raises(DataError, match="does not hold set"):
        fetch("tiny", downloaded([("other/a.txt", b"hello")]), tmp_path / "data")
