"""Folders, zips and tars: what is read of them, and everything that is refused."""

import io
import os
import stat
import struct
import tarfile
import zipfile

import pytest

from hamflow.data import archives
from hamflow.errors import ConfigurationError, DataError

FILES = {"b/two.txt": b"22", "a/one.txt": b"1" * 5000, "three.txt": b""}
KINDS = ["folder", "zip", "tar", "tar.gz", "tgz", "tar.xz", "txz"]
TARS = {"tar": "w", "tar.gz": "w:gz", "tgz": "w:gz", "tar.xz": "w:xz", "txz": "w:xz"}


def pack(root, kind, files):
    """A folder or archive of the kind with these files; names are taken as they are."""
    path = root / f"files.{kind}" if kind != "folder" else root / "files"
    if kind == "folder":
        for name, content in files.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(content)
    elif kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in files.items():
                archive.writestr(name, content)
    else:
        with tarfile.open(path, TARS[kind]) as archive:
            for name, content in files.items():
                add(archive, name, content)
    return path


def add(archive, name, content=b"", **facts):
    header = tarfile.TarInfo(name)
    header.size = len(content)
    for key, value in facts.items():
        setattr(header, key, value)
    archive.addfile(header, io.BytesIO(content))


def read(path):
    return {member.name: member.read() for member in archives.members(path)}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_gives_the_same_files(tmp_path, kind):
    path = pack(tmp_path, kind, FILES)
    assert read(path) == FILES
    assert [member.name for member in archives.members(path)] == [member.name for member in archives.members(path)]


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_names_lose_what_says_nothing(tmp_path, kind):
    assert read(pack(tmp_path, kind, {"./a/./b.txt": b"x"})) == {"a/b.txt": b"x"}


@pytest.mark.parametrize("kind", KINDS)
def test_spaces_of_every_kind_are_names(tmp_path, kind):
    """macOS puts a narrow one before PM, Japanese has a wide one."""
    files = {"at 3.45.12\u202fPM.png": b"1", "a\u3000b/c\u00a0d.png": b"2"}
    assert read(pack(tmp_path, kind, files)) == files


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
@pytest.mark.parametrize(
    "name",
    [
        "../x",
        "a/../../x",
        "/etc/x",
        "//x",
        "a//b",
        "..",
        "C:x",
        "c:/x",
        "a\\b",
        "..\\x",
        "x" * 2000,
    ],
)
def test_a_name_that_could_lead_elsewhere_is_refused(tmp_path, kind, name):
    with pytest.raises(DataError, match="the member"):
        read(pack(tmp_path, kind, {"good.txt": b"1", name: b"x"}))


def test_a_name_with_a_nul_is_refused(tmp_path):
    path = pack(tmp_path, "zip", {"a_b.txt": b"x"})
    path.write_bytes(path.read_bytes().replace(b"a_b.txt", b"a\0b.txt"))
    with pytest.raises(DataError, match="has a NUL"):
        read(path)


@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_occurs_twice_is_refused(tmp_path, kind):
    path = tmp_path / f"x.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a/b", b"1")
            archive.writestr("./a/b", b"2")
    else:
        with tarfile.open(path, "w") as archive:
            add(archive, "a/b", b"1")
            add(archive, "a/b", b"2")
    with pytest.raises(DataError, match="twice"):
        read(path)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_a_tar_with_links_or_devices_is_refused(tmp_path, kind):
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        add(archive, "innocent.png", type=kind, linkname="/etc/passwd")
    with pytest.raises(DataError, match="is a link, a device"):
        read(tmp_path / "x.tar")


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO])
def test_a_zip_with_links_or_devices_is_refused(tmp_path, kind):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        info = zipfile.ZipInfo("innocent.png")
        info.external_attr = (kind | 0o777) << 16
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(DataError, match="is a link or a device"):
        read(tmp_path / "x.zip")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_zip_that_unpacks_without_bounds_is_refused(tmp_path, method):
    with zipfile.ZipFile(tmp_path / "x.zip", "w", method) as archive:
        archive.writestr("a.png", b"0" * 1000)
    with pytest.raises(DataError, match="another method than deflate"):
        read(tmp_path / "x.zip")


def test_an_encrypted_zip_is_refused(tmp_path):
    path = pack(tmp_path, "zip", {"a": b"x"})
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="encrypted"):
        read(path)


@pytest.mark.parametrize("members", [1, 40])
@pytest.mark.parametrize("kind", ["zip", "tar.gz", "tar.xz"])
def test_a_bomb_is_refused_before_it_goes_off(tmp_path, kind, members):
    """40 MB of nothing in a few kB: within the bound of one member, not within what the archive's size explains."""
    path = pack(tmp_path, kind, {f"{index}.png": b"\0" * (40_000_000 // members) for index in range(members)})
    assert path.stat().st_size < 100_000
    with pytest.raises(DataError, match="times its size"):
        read(path)


@pytest.mark.parametrize("kind", KINDS)
def test_a_member_that_is_too_large_is_refused(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(archives, "LARGEST_MEMBER", 4999)
    with pytest.raises(DataError, match="more than 4999 bytes"):
        read(pack(tmp_path, kind, FILES))


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_too_many_members_are_refused(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(archives, "MOST_MEMBERS", 2)
    with pytest.raises(DataError, match="more than 2 files"):
        read(pack(tmp_path, kind, FILES))


@pytest.mark.parametrize("claimed", [1, 4999, 5001, 2**31])
def test_a_zip_that_lies_of_a_size_is_refused(tmp_path, claimed):
    path = pack(tmp_path, "zip", {"a": os.urandom(5000)})
    content = bytearray(path.read_bytes())
    for mark, offset in ((b"PK\x01\x02", 24), (b"PK\x03\x04", 22)):
        struct.pack_into("<I", content, content.index(mark) + offset, claimed)
    path.write_bytes(content)
    with pytest.raises(DataError, match="damaged|times its size"):
        read(path)


def with_header(content, **fields):
    """A tar whose first header has other fields and a right checksum."""
    places = {"size": slice(124, 136), "type": slice(156, 157)}
    block = bytearray(content[:512])
    for field, value in fields.items():
        block[places[field]] = value
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block) + content[512:]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"size": b"77777777777\0"}, "times its size"),  # 8 GiB, which tarfile would skip in blocks of 10 kB
        ({"size": b"\x80" + b"\0" * 3 + b"\x7f" + b"\xff" * 7}, "times its size"),  # 2^63 - 1
        ({"size": b"\xff" * 11 + b"\0"}, "claims"),  # negative: tarfile would go back
        ({"type": b"L", "size": b"77777777777\0"}, "claims"),  # a long name
        ({"type": b"x", "size": b"00000200000\0"}, "claims"),  # attributes
        ({"type": b"S"}, "sparse"),
    ],
)
def test_a_tar_that_lies_of_a_size_is_refused(tmp_path, fields, reason):
    path = pack(tmp_path, "tar", {"a": b"x" * 1000, "b": b"y"})
    path.write_bytes(with_header(path.read_bytes(), **fields))
    with pytest.raises(DataError, match=reason):
        read(path)


def test_a_damaged_header_is_not_taken_for_the_end(tmp_path):
    """tarfile alone stops there in silence, and the rest of the images would be missing."""
    path = pack(tmp_path, "tar", {"a": b"1", "b": b"2", "c": b"3"})
    content = bytearray(path.read_bytes())
    content[1024 + 3] ^= 1  # in the header of b
    path.write_bytes(content)
    with tarfile.open(path) as archive:
        assert archive.getnames() == ["a"]
    with pytest.raises(DataError, match="bad checksum"):
        read(path)


@pytest.mark.parametrize("kind", KINDS[1:])
def test_a_truncated_archive_is_refused_wherever_it_ends(tmp_path, kind):
    path = pack(tmp_path, kind, FILES | {"noise": os.urandom(3000)})
    content = path.read_bytes()
    ends = [0, 1, 100, 511, 512, 513, 1024, len(content) // 2, len(content) - 4]
    if kind == "tar":
        ends = [end for end in ends if end < len(content) - 10240] + [len(content) // 512 * 512 // 2]
    for end in ends:
        path.write_bytes(content[:end])
        with pytest.raises(DataError):
            read(path)


@pytest.mark.parametrize("kind", ["zip", "tar.gz", "tar.xz"])
def test_a_flipped_byte_of_what_is_stored_is_found(tmp_path, kind):
    path = pack(tmp_path, kind, {"noise": os.urandom(9000)})  # which no method can pack: a flip is still a valid stream
    content = bytearray(path.read_bytes())
    content[5000] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="damaged"):
        read(path)


def test_a_link_to_a_file_is_read_as_the_file(tmp_path):
    """`dvc checkout` may link files into a folder."""
    root = pack(tmp_path, "folder", FILES)
    (tmp_path / "elsewhere").write_bytes(b"4")
    (root / "four.txt").symlink_to(tmp_path / "elsewhere")
    assert read(root) == FILES | {"four.txt": b"4"}


def test_a_folder_is_followed_once_whatever_links_to_it(tmp_path):
    """To itself, to the folder above it, to a folder beside it, twice to one elsewhere."""
    root, elsewhere = pack(tmp_path, "folder", FILES), tmp_path / "elsewhere"
    (elsewhere / "deep").mkdir(parents=True)
    (elsewhere / "deep" / "4").write_bytes(b"4")
    (elsewhere / "back").symlink_to(root)
    for name, target in {"loop": root, "up": tmp_path, "twin": root / "a", "c": elsewhere, "d": elsewhere}.items():
        (root / name).symlink_to(target)
    files = {member.name: member for member in archives.members(root)}
    assert {name: file.read() for name, file in files.items() if not file.left_out} == FILES | {"c/deep/4": b"4"}
    assert {name for name, file in files.items() if file.left_out} == {
        "loop",
        "twin",
        "c/back",
        "d",
        "up/files",
        "up/elsewhere",
    }


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["a\nb", "a\x1bb", "a\u202eb", "a\u2028b", "a\u200bb", "Icon\r", "\U0001f469\u200d\U0001f467"])
def test_a_name_that_is_strange_and_harmless_is_read_and_shown_in_escapes(tmp_path, kind, name):
    assert read(pack(tmp_path, kind, {"good.txt": b"1", name: b"x"})) == {"good.txt": b"1", name: b"x"}
    assert archives.shown(name).isprintable()


@pytest.mark.parametrize("name", [b"a:b", b"a\\b", b"C:x", b"\xe4", b"\xff/\xfe"])
def test_any_name_in_a_folder_is_read(tmp_path, name):
    path = os.path.join(os.fsencode(tmp_path / "files"), name)
    os.makedirs(os.path.dirname(path))
    with open(path, "wb") as file:
        file.write(b"x")
    assert read(tmp_path / "files") == {os.fsdecode(name): b"x"}


@pytest.mark.parametrize("kind", ["fifo", "device", "broken link"])
def test_what_is_no_file_in_a_folder_is_refused_when_it_is_read_and_not_before(tmp_path, kind):
    root = pack(tmp_path, "folder", {"a": b"1"})
    if kind == "fifo":
        os.mkfifo(root / "b.png")  # opening it would wait for ever
    else:
        (root / "b.png").symlink_to("/dev/zero" if kind == "device" else "nowhere")
    assert [member.name for member in archives.members(root)] == ["a", "b.png"]
    with pytest.raises(archives.NotAFile, match="is no file"):
        read(root)


@pytest.mark.parametrize("name", ["absent", "file.rar", "file", "folder.zip/absent"])
def test_what_is_no_folder_or_archive_is_a_paragraph(tmp_path, name):
    if name.startswith("file"):
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(ConfigurationError, match="there is no folder|neither a folder"):
        read(tmp_path / name)


@pytest.mark.parametrize("content", [b"", b"x", b"\0" * 511, b"PK\x05\x06", bytes(range(256)) * 8])
@pytest.mark.parametrize("kind", KINDS[1:])
def test_a_foreign_file_is_a_paragraph(tmp_path, kind, content):
    (tmp_path / f"x.{kind}").write_bytes(content)
    with pytest.raises(DataError, match="damaged"):
        read(tmp_path / f"x.{kind}")
