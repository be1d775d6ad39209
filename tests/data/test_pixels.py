"""Single image files: every format and depth by one rule, blocks beside the pixels, damage in the scans of a JPEG."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from hamflow import data
from hamflow.data import jpeg
from hamflow.data.pixels import decode
from hamflow.errors import DataError

GREY = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4
RGB = np.stack([GREY] * 3, -1)
OPAQUE = np.full_like(GREY, 255)


def encoded(array, kind, **options):
    file = io.BytesIO()
    (array if isinstance(array, Image.Image) else Image.fromarray(array)).save(file, kind, **options)
    return file.getvalue()


def png16(colour, array):
    """16 bits a channel, which Pillow cannot write."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in array.astype(np.uint16) * 257)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 16, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


DEEP = GREY.astype(np.uint16) * 257
SAME = {
    "grey": encoded(GREY, "PNG"),
    "colours": encoded(RGB, "PNG"),
    "grey, alpha": encoded(np.stack([GREY, OPAQUE], -1), "PNG"),
    "colours, alpha": encoded(np.dstack([RGB, OPAQUE]), "PNG"),
    "palette": encoded(Image.fromarray(RGB).quantize(64), "PNG"),
    "16 bits": encoded(DEEP, "PNG"),
    "16 bits, colours": png16(2, RGB),
    "16 bits, colours, alpha": png16(6, np.dstack([RGB, OPAQUE])),
    "16 bits, alpha": png16(4, np.stack([GREY, OPAQUE], -1)),
    "16 bits, TIFF": encoded(DEEP, "TIFF"),
    "16 bits, TIFF of the other order": encoded(Image.fromarray(DEEP.astype(">u2")), "TIFF"),
    "TIFF": encoded(RGB, "TIFF"),
    "packed TIFF": encoded(RGB, "TIFF", compression="tiff_lzw"),
    "BMP": encoded(RGB, "BMP"),
    "grey BMP": encoded(GREY, "BMP"),
    "GIF": encoded(Image.fromarray(RGB).quantize(64), "GIF"),
    "the first picture of a GIF": encoded(Image.fromarray(GREY), "GIF", save_all=True, append_images=[Image.new("L", (8, 8))]),
    "WebP": encoded(RGB, "WEBP", lossless=True),
}


@pytest.mark.parametrize("case", SAME)
def test_one_picture_in_every_format_gives_the_same_grey_levels(case):
    for channels in (1, 3):
        found, damaged = decode(SAME[case], 8, channels, "box")
        assert np.array_equal(found, RGB[..., :channels])
        assert not damaged


def test_16_bits_from_white_to_black_or_of_12_are_refused():
    content = encoded(DEEP, "TIFF")
    for tag, value in ((262, 0), (258, 12)):
        at = content.index(struct.pack("<HHI", tag, 3, 1)) + 8
        with pytest.raises(ValueError, match="16 bits from black to white|kinds"):
            decode(content[:at] + struct.pack("<H", value) + content[at + 2 :], 8, 1, "box")


@pytest.mark.parametrize("ending", ["jpe", "jfif", "BMP", "tif", "TIFF", "gif", "png", "jpeg"])
def test_a_file_is_what_its_content_says(tmp_path, ending):
    for index, kind in enumerate(("BMP", "GIF", "PNG", "TIFF")):
        (tmp_path / f"{index}.{ending}").write_bytes(encoded(GREY, kind))
    found, _ = data.build("images", {"path": str(tmp_path), "resolution": 8, "channels": 1}).read()
    assert np.array_equal(found, np.stack([GREY[..., None]] * 4))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_a_truncated_image_is_refused_wherever_it_ends(kind):
    """Or nothing of its pixels was cut off."""
    content = encoded(np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8), kind)
    whole, _ = decode(content, 24, 3, "box")
    refused = 0
    for end in range(0, len(content), 7):
        try:
            found, _ = decode(content[:end], 24, 3, "box")
        except ValueError:
            refused += 1
        else:
            assert np.array_equal(found, whole), end
    assert refused >= len(range(0, len(content), 7)) - 2


def photograph(size=(64, 48), **options):
    """Smooth and rough parts, as JPEG."""
    rng = np.random.default_rng(0)
    rows = np.linspace(0, 200, size[1])[:, None, None] + rng.normal(0, 15, (size[1], size[0], 3))
    return encoded(rows.clip(0, 255).astype(np.uint8), "JPEG", **{"quality": 90, **options})


def entry(tag, kind, count, value, order="<"):
    start = b"II*\0" if order == "<" else b"MM\0*"
    return start + struct.pack(order + "IHHHII", 8, 1, tag, kind, count, value) + b"\0\0\0\0"


BLOCKS = {
    "text behind the end": b"Exif\0\0" + entry(271, 2, 64, 900),
    "cut off": b"Exif\0\0" + entry(271, 2, 64, 900)[:15],
    "the other order": b"Exif\0\0" + entry(271, 2, 4000, 30, ">"),
    "a rational of no length": b"Exif\0\0" + entry(282, 5, 2**31, 12),
}


def with_block(content, block, marker=0xE1):
    return content[:2] + struct.pack(">BBH", 0xFF, marker, len(block) + 2) + block + content[2:]


@pytest.mark.parametrize("case", BLOCKS)
def test_a_damaged_exif_block_around_whole_pixels_is_passed_over(case):
    content = photograph()
    whole, damaged = decode(content, 48, 3, "box")
    assert not damaged
    found, damaged = decode(with_block(content, BLOCKS[case]), 48, 3, "box")
    assert np.array_equal(found, whole)
    assert damaged


@pytest.mark.parametrize("rest", [b"", b"II*\0", b"II*\0" + b"\xff" * 40, entry(0xB001, 4, 1, 3), entry(0xB001, 2, 4, 8)])
def test_a_damaged_block_of_other_pictures_around_whole_pixels_is_passed_over(rest):
    content = photograph()
    found, damaged = decode(with_block(content, b"MPF\0" + rest, 0xE2), 48, 3, "box")
    assert np.array_equal(found, decode(content, 48, 3, "box")[0])
    assert damaged


def test_a_sound_block_turns_the_picture_and_is_not_counted():
    content = photograph()
    found, damaged = decode(with_block(content, b"Exif\0\0" + entry(274, 3, 1, 3)), 48, 3, "box")
    assert np.array_equal(found, decode(content, 48, 3, "box")[0][::-1, ::-1])
    assert not damaged


def test_damaged_blocks_are_counted_in_the_manifest(tmp_path):
    for index in range(4):
        content = photograph() if index else with_block(photograph(), BLOCKS["cut off"])
        (tmp_path / f"{index}.jpg").write_bytes(content)
    spec = {"name": "mine", "source": "images", "options": {"path": str(tmp_path), "resolution": 4}}
    assert data.prepare(spec, tmp_path / "mine")["contents"]["damaged_blocks"] == 1


KINDS = {
    "baseline": {},
    "progressive": {"progressive": True},
    "optimised": {"optimize": True},
    "full colour": {"subsampling": 0},
    "restarts": {"restart_marker_rows": 1},
    "flat": {"quality": 20},
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_jpeg_that_is_whole_is_read(kind):
    for size in ((8, 8), (17, 23), (256, 200)):
        for quality in (10, 100):
            decode(photograph(size, **{**KINDS[kind], "quality": quality}), 8, 3, "box")
    decode(encoded(Image.new("RGB", (300, 200), "white"), "JPEG", **KINDS[kind]), 8, 3, "box")


@pytest.mark.parametrize("share", [30, 55, 80, 95])
@pytest.mark.parametrize("kind", KINDS)
def test_a_jpeg_with_a_part_that_was_never_written_is_refused(kind, share):
    """Zeros to its end; an end too early; a hole in the middle; a part that stands twice."""
    content = photograph((256, 256), **KINDS[kind])
    cut = len(content) * share // 100
    for damaged in (
        content[:cut] + bytes(len(content) - cut),
        content[:cut] + b"\xff\xd9",
        content[:cut] + bytes(400) + content[cut + 400 :],
        content[:-2],
    ):
        with pytest.raises(ValueError, match="picture|cut off|stream|truncated"):
            decode(damaged, 8, 3, "box")


def test_a_jpeg_that_lost_or_doubled_bytes_of_its_scan_is_refused():
    content = photograph((256, 256))
    for cut in range(2000, len(content) - 2000, 1500):
        for damaged in (content[:cut] + content[cut + 900 :], content[:cut] + content[cut - 900 :]):
            with pytest.raises(ValueError, match="picture"):
                decode(damaged, 8, 3, "box")


def test_a_progressive_jpeg_that_ends_between_its_scans_is_refused():
    content = photograph((64, 64), progressive=True)
    starts = [start for marker, start, _ in jpeg.segments(content) if marker == jpeg.SCAN]
    assert len(starts) > 4
    for start in starts[1:]:
        with pytest.raises(ValueError, match="scans are missing"):
            decode(content[:start] + b"\xff\xd9", 8, 3, "box")


def test_bad_images_are_named_together_up_to_twenty_without_places_in_memory(tmp_path):
    for index in range(30):
        (tmp_path / f"{index:02}.png").write_bytes(b"hello" if index % 2 and index < 26 else encoded(GREY, "PNG"))
    with pytest.raises(DataError) as told:
        data.build("images", {"path": str(tmp_path), "resolution": 4}).read()
    assert str(told.value).count("cannot be used") == 13
    assert " at 0x" not in str(told.value)
    for index in range(30):
        (tmp_path / f"{index:02}.png").write_bytes(b"hello")
    with pytest.raises(DataError, match="and perhaps others") as told:
        data.build("images", {"path": str(tmp_path), "resolution": 4}).read()
    assert str(told.value).count("cannot be used") == 20


def test_the_home_directory_may_be_meant(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "1.png").write_bytes(encoded(GREY, "PNG"))
    found, _ = data.build("images", {"path": "~/pictures", "resolution": 8, "channels": 1}).read()
    assert np.array_equal(found[0, ..., 0], GREY)
