"""Whatever the archive or the image: a paragraph, or arrays; and not a file outside of the data set's folder."""

import gzip
import io
import json
import lzma
import stat
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from spoil import NAMES, NUMBERS, altered, bounded_memory, bounded_time, fuzzed, spoilt, texts, tree

from hamflow import data
from hamflow.data import archives, classes, images, pixels
from hamflow.errors import DataError, UserError

KINDS = ("zip", "tar", "tar.gz", "tar.xz")
COMPRESS = {"zip": bytes, "tar": bytes, "tar.gz": gzip.compress, "tar.xz": lzma.compress}
MODES = {"tar": "w", "tar.gz": "w:gz", "tar.xz": "w:xz"}


def image(kind, size=(6, 5), mode="RGB", **options):
    file = io.BytesIO()
    array = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(array).convert(mode).save(file, kind, **options)
    return file.getvalue()


IMAGES = [
    image("PNG"),
    image("JPEG"),
    image("WEBP"),
    image("PNG", mode="P"),
    image("PNG", mode="LA"),
    image("JPEG", mode="CMYK"),
]
IMAGES += [
    image("GIF"),
    image("BMP"),
    image("TIFF"),
    image("TIFF", compression="tiff_lzw"),
    image("JPEG", restart_marker_rows=1),
]
IMAGES += [image("TIFF", compression="jpeg"), image("TIFF", mode="I;16"), image("BMP", mode="P"), image("PNG", mode="I;16")]
IMAGES += [image("WEBP", lossless=True), image("JPEG", size=(70, 50), progressive=True), image("PNG", size=(70, 50), mode="1")]


def packed(kind, entries, format=tarfile.PAX_FORMAT):
    """An archive of (name, content, facts) as hostile as they are."""
    file = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content, facts in entries:
                info = zipfile.ZipInfo(name)
                info.external_attr = facts.get("mode", 0) << 16
                archive.writestr(info, content)
    else:
        with tarfile.open(fileobj=file, mode=MODES[kind], format=format, errors="surrogatepass") as archive:
            for name, content, facts in entries:
                header = tarfile.TarInfo(name)
                header.size = len(content)
                header.type = facts.get("type", tarfile.REGTYPE)
                header.linkname = facts.get("link", "")
                header.pax_headers = facts.get("pax", {})
                archive.addfile(header, io.BytesIO(content))
    return file.getvalue()


PLAIN = [
    ("a/1.png", IMAGES[0], {}),
    ("a/2.jpg", IMAGES[1], {}),
    ("b/3.webp", IMAGES[2], {}),
    ("notes.txt", b"x" * 700, {}),
    ("b/4.png", IMAGES[3], {}),
]
BASES = {kind: [packed(kind, PLAIN)] for kind in KINDS}
BASES["tar"] += [
    packed("tar", PLAIN, tarfile.GNU_FORMAT),
    packed("tar", [(f"{'x' * 150}/{k}.png", IMAGES[0], {"pax": {"comment": "y"}}) for k in range(4)]),
]

names = st.one_of(
    st.sampled_from([name for name in NAMES if name and "\0" not in name and "\ud800" not in name]),
    st.lists(st.sampled_from(["a", "b", "..", ".", "", "...", "C:", "\\", "~"]), min_size=1, max_size=5).map("/".join),
    texts.filter(lambda name: name and "\0" not in name and name.isprintable()),
).map(lambda name: name if name.endswith("/") else f"{name}.png")
facts = st.fixed_dictionaries(
    {},
    optional={
        "mode": st.sampled_from([0, stat.S_IFREG, stat.S_IFLNK, stat.S_IFDIR, stat.S_IFCHR, stat.S_IFIFO, 0xFFFF]),
        "type": st.sampled_from([b"0", b"\0", b"1", b"2", b"3", b"4", b"5", b"6", b"7", b"S", b"Z"]),
        "link": names,
        "pax": st.dictionaries(
            st.sampled_from(
                ["path", "size", "linkpath", "GNU.sparse.major", "GNU.sparse.minor", "GNU.sparse.size", "GNU.sparse.map"]
            )
            | st.sampled_from(["GNU.sparse.name", "GNU.sparse.realsize", "hdrcharset", "mtime", "comment", "SCHILY.xattr.x"]),
            st.sampled_from([str(number) for number in NUMBERS])
            | st.sampled_from(["-1", "-512", "1e9", "nan", "x", "1,2,3", "BINARY", "../x"]),
            max_size=3,
        ),
    },
)


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory):
    """A folder with something beside the place where the data set belongs."""
    root = tmp_path_factory.mktemp("sandbox")
    (root / "data").mkdir()
    (root / "precious.png").write_bytes(IMAGES[0])
    (root / "link.png").symlink_to("precious.png")
    with bounded_memory():
        yield root


def prepare(sandbox, kind, content):
    """Make a data set of an archive: either a paragraph and nothing, or whole arrays; and all else as it was."""
    archive = sandbox / f"images.{kind}"
    archive.write_bytes(content)
    folder = sandbox / "data" / "mine"
    before = tree(sandbox)
    spec = {"name": "mine", "source": "images", "options": {"path": str(archive), "resolution": 4}}
    try:
        with bounded_time():
            data.prepare(spec, folder)
    except UserError:
        made = None
    else:
        made = data.load(folder, verify=True)
        assert made.rows.shape[1:] == (4, 4, 3)
        for path in folder.iterdir():
            assert path.name in {"images.npy", "labels.npy", "dataset.json"}
            path.unlink()
        folder.rmdir()
    assert tree(sandbox) == before
    return made


@pytest.mark.parametrize("kind", KINDS)
def test_spoilt_archives(sandbox, kind):
    @fuzzed
    @given(spoilt(BASES[kind]))
    def run(content):
        prepare(sandbox, kind, content)

    run()


@pytest.mark.parametrize("kind", ["tar.gz", "tar.xz"])
def test_spoilt_tars_in_sound_compression(sandbox, kind):
    """What is spoilt before it is compressed gets past the checksums of the compression."""

    @fuzzed
    @given(spoilt(BASES["tar"]))
    def run(content):
        prepare(sandbox, kind, COMPRESS[kind](content))

    run()


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("kind", KINDS)
def test_hostile_members(sandbox, kind):
    """Names that lead elsewhere, links, devices, sparse files, sizes in attributes, twice the same."""

    @fuzzed
    @given(st.lists(st.tuples(names, st.sampled_from(IMAGES[:3]), facts), min_size=1, max_size=3))
    def run(entries):
        prepare(sandbox, kind, packed(kind, [*((f"good{k}.png", IMAGES[0], {}) for k in range(4)), *entries]))

    run()


@pytest.mark.parametrize("kind", KINDS)
def test_headers_with_lying_numbers(sandbox, kind):
    """Sizes, offsets and types overwritten, and in tars the checksum of the header mended."""

    @fuzzed
    @given(st.data())
    def run(choices):
        content = bytearray(packed(kind if kind == "zip" else "tar", PLAIN))
        for _ in range(choices.draw(st.integers(1, 3))):
            if kind == "zip":
                mark, first, last = choices.draw(st.sampled_from([(b"PK\1\2", 4, 46), (b"PK\3\4", 4, 30), (b"PK\5\6", 4, 22)]))
                start = content.find(mark) + choices.draw(st.integers(first, last - 2))
                size = choices.draw(st.sampled_from([2, 4]))
                content[start : start + size] = (choices.draw(st.sampled_from(NUMBERS)) % 2 ** (8 * size)).to_bytes(
                    size, "little"
                )
            else:
                blocks = [at for at in range(0, len(content), 512) if content[at + 257 : at + 262] == b"ustar"]
                at = choices.draw(st.sampled_from(blocks))
                field, width = choices.draw(
                    st.sampled_from([(124, 12), (156, 1), (100, 8), (0, 100), (345, 155), (257, 8), (386, 24)])
                )
                number = choices.draw(st.sampled_from(NUMBERS))
                value = choices.draw(
                    st.one_of(
                        st.just(b"%o" % number),
                        st.just(b"\x80" + number.to_bytes(width, "big")[1:] if width >= 9 else b"7" * width),
                        st.just(b"\xff" * width),
                        st.binary(max_size=width),
                    )
                )
                content[at + field : at + field + width] = value[:width].ljust(width, b"\0")
                content[at + 148 : at + 156] = b" " * 8
                content[at + 148 : at + 156] = b"%06o\0 " % sum(content[at : at + 512])
        prepare(sandbox, kind, COMPRESS[kind](bytes(content)))

    run()


@fuzzed
@given(spoilt(IMAGES), st.sampled_from([1, 3]), st.sampled_from(images.FILTERS))
def test_spoilt_images(content, channels, filter):
    try:
        with bounded_time():
            found, _ = pixels.decode(content, 4, channels, filter)
    except ValueError:
        return
    assert (found.shape, found.dtype) == ((4, 4, channels), np.uint8)


def block(marker, content):
    return bytes([0xFF, marker]) + (len(content) + 2).to_bytes(2, "big") + content


def exif():
    block = Image.Exif()
    block[0x0112], block[0x010F], block[0x011A] = 6, "a camera", 72.0
    block.get_ifd(0x8769)[0x9003] = "2020:01:01 00:00:00"
    return block.tobytes()


MPF = b"MPF\0II*\0\x08\0\0\0\x03\0" + b"".join(
    tag.to_bytes(2, "little") + kind.to_bytes(2, "little") + count.to_bytes(4, "little") + value
    for tag, kind, count, value in ((0xB000, 7, 4, b"0100"), (0xB001, 4, 1, b"\2\0\0\0"), (0xB002, 7, 32, b"\x32\0\0\0"))
)
BLOCKS = [(0xE1, exif()), (0xE2, MPF + bytes(4) + (b"\0\0\3\0" + bytes(12)) * 2)]


@pytest.mark.parametrize(("marker", "content"), BLOCKS)
def test_spoilt_blocks_around_whole_pixels(marker, content):
    """EXIF and MPF: whatever they hold, the picture is there, as it lies or turned."""
    jpeg = image("JPEG", size=(7, 7))
    whole, _ = pixels.decode(jpeg, 7, 3, "box")
    turned = {np.rot90(array, k).tobytes() for array in (whole, whole[:, ::-1]) for k in range(4)}

    @fuzzed
    @given(spoilt([content]) | st.binary(max_size=80).map(lambda rest: content[:6] + rest))
    def run(spoiled):
        with bounded_time():
            found, _ = pixels.decode(jpeg[:2] + block(marker, spoiled[:60_000]) + jpeg[2:], 7, 3, "box")
        assert found.tobytes() in turned

    run()


def as_bytes(value):
    return json.dumps(value).encode()


LABEL_FILES = [
    {"labels": [["a/1.png", 0], ["a/2.jpg", 3], ["b/3.webp", 0], ["b/4.png", 1]]},
    {"labels": None},
    {"labels": [["a/1.png", [0.0, 1.0]]], "x": {"y": [1]}},
]


@fuzzed
@given(
    spoilt([json.dumps(file).encode() for file in LABEL_FILES]) | altered(LABEL_FILES[0]).map(lambda v: json.dumps(v).encode())
)
def test_spoilt_label_files(content):
    every = ["a/1.png", "a/2.jpg", "b/3.webp", "b/4.png"]
    try:
        with bounded_time():
            labels = classes.read_labels("it", content)
            found = classes.arrange("it", every, {"": labels} if labels is not None else {})
    except DataError:
        return
    assert found.labels is None or sorted(set(found.labels.tolist())) == list(range(len(found.classes)))
    assert labels is not None or found.classes == ("a", "b")


@fuzzed
@given(st.text(max_size=40) | names)
def test_a_safe_name_stays_below_any_root(name):
    try:
        safe = archives._safe_name(Path("x.zip"), name)
    except DataError:
        return
    root = Path("/some/root")
    assert (root / safe).resolve().is_relative_to(root)
    assert not safe.startswith("/")


@pytest.mark.parametrize("kind", KINDS)
def test_the_sound_archives_are_read(sandbox, kind):
    """Or all of the above would pass by refusing everything."""
    for content in BASES[kind]:
        assert prepare(sandbox, kind, content) is not None
