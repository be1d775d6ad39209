"""Damage in the scans of a JPEG, which its decoder mends by guessing and does not tell.

A scan whose data end too early, or go on after its last block, was cut, overwritten or lost its place. Both show without
decoding it by hand: bytes put behind a complete scan change no pixel, and other bytes in place of its last ones do.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

NOISE = bytes((73 * k * k + 151 * k + 29) % 251 + 1 for k in range(96))  # neither 0x00 nor 0xFF: data, and no marker
UNUSED = 8  # bytes that a scan may have too many: some cameras leave a few
PADDING = b"\x00\xff\x20"  # with which encoders fill up
START, END, SCAN, TABLES = 0xD8, 0xD9, 0xDA, 0xC4
RESTARTS = range(0xD0, 0xD8)
BLOCKS = (0xE1, 0xE2)  # APP1, APP2
FRAMES = (0xC0, 0xC1, 0xC2)  # Huffman-coded, 8 bits; others are left to the decoder
PROGRESSIVE = 0xC2
COEFFICIENTS = 64
HOLE = bytes(48)  # of zeros, where these stand for coefficients: no picture has so many of -1, one after the other


@dataclass(frozen=True)
class Scan:
    """One scan: its parameters, and where its data lie.

    Args:
        header: of the marker, without its length.
        pieces: (start, end) of each run of data between restart markers.
        has_coefficients: zeros in the data are not the ends of blocks, for a component at least.
    """

    header: bytes
    pieces: list[tuple[int, int]]
    has_coefficients: bool


def check(content: bytes, whole: bytes, pixels: Callable[[bytes], bytes]) -> None:
    """Pass a JPEG whose scans are complete, as far as it can be told.

    Not found is other damage than of zeros that leaves the number of blocks as it was or, in a progressive picture or before a
    restart marker, makes it larger.

    Args:
        whole: its pixels, as decoded.
        pixels: decodes such bytes.
    Raises:
        ValueError: it has no end, a scan is missing, too short or too long, or restarts are out of order.
    """
    frame, scans = _parse(content)
    if frame not in FRAMES:
        return
    if frame == PROGRESSIVE:
        _check_refinement(scans)
    if any(scan.has_coefficients and HOLE in content[start:end] for scan in scans for start, end in scan.pieces):
        raise ValueError("its picture is damaged: a part of it is empty")
    ends = [end for scan in scans for _, end in scan.pieces]
    if not _same(pixels, _replaced(content, [(end, end) for end in ends]), whole):
        raise ValueError("its picture is not complete: the data of a scan end too early")
    if frame != PROGRESSIVE:  # of which a scan may add less than a grey level
        start, end = scans[-1].pieces[-1] if scans else (0, 0)
        end = start + len(content[start:end].rstrip(PADDING))
        if end - UNUSED > start and _same(pixels, _replaced(content, [(end - UNUSED, end)]), whole):
            raise ValueError("its picture is damaged: a scan has more data than pixels")


def without_blocks(content: bytes) -> bytes:
    """The same picture without its blocks of EXIF, XMP, profiles and other pictures. Raises ValueError as `segments` does."""
    parts: list[bytes] = []
    last = 0
    for marker, start, end in segments(content):
        if marker in BLOCKS:
            parts, last = [*parts, content[last:start]], end
    return b"".join([*parts, content[last:]])


def _same(pixels: Callable[[bytes], bytes], content: bytes, whole: bytes) -> bool:
    try:
        return pixels(content) == whole
    except (OSError, SyntaxError):  # the decoder read the noise, and found it out
        return False


def _replaced(content: bytes, places: list[tuple[int, int]]) -> bytes:
    """With noise in these places."""
    parts, last = [], 0
    for start, end in places:
        parts += [content[last:start], NOISE[: end - start] if end > start else NOISE]
        last = end
    return b"".join([*parts, content[last:]])


def segments(content: bytes) -> Iterator[tuple[int, int, int]]:
    """(marker, start, end) of every segment to the end marker, from the marker's 0xFF on; a scan's data follow its segment.

    Raises:
        ValueError: there is no end marker, or what is no segment.
    """
    at = 2
    while True:
        at = content.find(b"\xff", at)
        while 0 <= at < len(content) - 1 and content[at + 1] == 0xFF:  # fill bytes
            at += 1
        if not 0 <= at < len(content) - 1:
            raise ValueError("it is cut off: it has no end marker")
        marker = content[at + 1]
        if marker == END:
            yield marker, at, at + 2
            return
        if marker in (0x00, 0x01, START) or marker in RESTARTS:
            if marker in RESTARTS:
                yield marker, at, at + 2
            at += 2
            continue
        end = at + 2 + int.from_bytes(content[at + 2 : at + 4], "big")
        yield marker, at, end
        at = end


def _parse(content: bytes) -> tuple[int, list[Scan]]:
    """The frame's marker (0 for none), and the scans."""
    frame, begun = 0, 0
    scans: list[Scan] = []
    first: dict[int, int] = {}
    for marker, start, end in segments(content):
        if begun:
            scans[-1].pieces.append((begun, start))
            begun = 0
        if marker == SCAN:
            header = content[start + 4 : end]
            scans.append(Scan(header, [], _has_coefficients(header, first)))
            begun = end
        elif marker in RESTARTS and scans:
            if marker != RESTARTS[(len(scans[-1].pieces) - 1) % 8]:
                raise ValueError("its picture is damaged: restart markers are missing")
            begun = end
        elif marker == TABLES:
            first |= _first_symbols(content[start + 4 : end])
        elif marker & 0xF0 == 0xC0 and marker not in (0xC8, 0xCC):
            frame = frame or marker
    return frame, scans


def _has_coefficients(header: bytes, first: dict[int, int]) -> bool:
    """Whether zeros in a scan are coefficients, by what they mean in the Huffman tables that it names."""
    count = header[0] if header else 0
    tables = {table & 0x0F for table in header[2 : 2 * count + 1 : 2]}
    return header[2 * count + 2 : 2 * count + 3] > b"\0" and any(first.get(table, 0) & 0x0F for table in tables)


def _first_symbols(tables: bytes) -> dict[int, int]:
    """What zeros mean in each Huffman table of coefficients: the size of one in the lower half, 0 at a block's end."""
    found = {}
    while len(tables) > 17:
        if tables[0] & 0xF0:
            found[tables[0] & 0x0F] = tables[17]
        tables = tables[17 + sum(tables[1:17]) :]
    return found


def _check_refinement(scans: list[Scan]) -> None:
    """Raise ValueError if a progressive picture lacks the last bits of a coefficient: a scan of it is missing."""
    left: dict[int, list[int]] = {}
    for scan in scans:
        count = scan.header[0] if scan.header else 0
        if len(scan.header) < 2 * count + 4:
            raise ValueError("its picture is damaged: the header of a scan is cut off")
        first, last, bits = scan.header[2 * count + 1 : 2 * count + 4]
        for component in scan.header[1 : 2 * count : 2]:
            rest = left.setdefault(component, [16] * COEFFICIENTS)
            for k in range(first, min(last, COEFFICIENTS - 1) + 1):
                rest[k] = bits & 0x0F
    if any(bits for rest in left.values() for bits in rest):
        raise ValueError("its picture is not complete: scans are missing")
