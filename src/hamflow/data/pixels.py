"""From the bytes of an image file, whoever wrote them, to a square array."""

import io
import re
import warnings
from typing import Any

import numpy as np

from hamflow.data import jpeg
from hamflow.errors import DataError

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
SUFFIXES = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".gif", ".bmp", ".tif", ".tiff")
PNG = b"\x89PNG"
MAGIC = re.compile(rb"\x89PNG\r\n\x1a\n|\xff\xd8\xff|RIFF....WEBP|GIF8[79]a", re.S)  # of files that have no ending
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")  # 8 bits a channel
DEEP = ("I;16", "I;16B", "I;16L", "I;16N")  # 16 bits: of every such image, grey or in colours, the upper 8 are kept
MOST_PIXELS = 2**26  # of an image before it is reduced: 8192 x 8192
ORIENTATION, BITS, PHOTOMETRIC = 274, 258, 262  # tags of EXIF and TIFF
UPRIGHT = {  # by the value of the tag
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}


def decode(content: bytes, resolution: int, channels: int, filter: str) -> tuple[np.ndarray, bool]:
    """The bytes of one image, turned upright, cropped to the middle square and resized.

    Returns:
        (uint8 [resolution, resolution, channels], whether a damaged block beside the pixels, EXIF or MPF, was passed over).
    Raises:
        ValueError: whatever the bytes are, if they are no whole image of the kinds that are read.
        DataError: there is no Pillow.
    """
    Image = _pillow()
    try:
        image, damaged = _loaded(content)
        image = _flattened(image, channels)
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        square = image.crop((left, top, left + side, top + side))
        resized = square.resize((resolution, resolution), Image.Resampling[filter.upper()])
    except Exception as error:  # a decoder of foreign bytes may raise anything
        raise ValueError(_reason(error)) from error
    return np.asarray(resized).reshape(resolution, resolution, channels), damaged


def _loaded(content: bytes) -> tuple[Any, bool]:
    """The image, upright, with all its pixels, and whether a block beside them is damaged."""
    if content.startswith(PNG):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            _pillow().open(io.BytesIO(content), formats=["PNG"]).verify()  # checksums, which decoding skips
    damaged = False
    try:
        image, told = _opened(content)
    except Exception:  # Pillow raises many kinds on a damaged block
        if not content.startswith(b"\xff\xd8"):
            raise
        content = jpeg.without_blocks(content)
        (image, _), told = _opened(content), True
    if told:
        if image.format not in ("JPEG", "MPO"):
            raise ValueError("its header is damaged")
        damaged = True
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of damage that Pillow would mend by guessing
        image.load()
    if image.format in ("JPEG", "MPO"):
        jpeg.check(content, image.tobytes(), _pixels)
    with warnings.catch_warnings(record=True) as about_exif:
        warnings.simplefilter("always")
        try:
            method = UPRIGHT.get(image.getexif().get(ORIENTATION))
        except Exception:  # the block is damaged: the pixels are as they lie
            method, damaged = None, True
    upright = image.transpose(_pillow().Transpose[method]) if method else image
    return upright, damaged or bool(about_exif)


def _opened(content: bytes) -> tuple[Any, bool]:
    """The image, not yet decoded, and whether Pillow warned of what it read so far."""
    Image = _pillow()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        image = Image.open(io.BytesIO(content), formats=FORMATS)
        if image.width * image.height > MOST_PIXELS:
            raise ValueError(f"it has {image.width} x {image.height} pixels, more than {MOST_PIXELS}")
        if image.mode not in MODES + DEEP:
            raise ValueError(f"its pixels are of the kind {image.mode}; 8 or 16 bits a channel are read")
        if image.format != "GIF" and image.format != "MPO" and getattr(image, "is_animated", False):
            raise ValueError("it is animated, or has several pages")
        if image.format == "TIFF" and image.mode in DEEP and (image.tag_v2[BITS], image.tag_v2[PHOTOMETRIC]) != ((16,), 1):
            raise ValueError("its pixels are not of 16 bits from black to white")
    return image, bool(told)


def _pixels(content: bytes) -> bytes:
    """Of a JPEG that is whole but for what `jpeg.check` changed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _opened(content)[0].tobytes()


def _flattened(image: Any, channels: int) -> Any:
    """The image with 1 or 3 channels of 8 bits, on white where it is transparent."""
    Image = _pillow()
    if image.mode in DEEP:
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("L" if channels == 1 else "RGB")


def _reason(error: Exception) -> str:
    """What an error says, without places in memory."""
    if type(error).__name__ == "UnidentifiedImageError":
        return f"its bytes are no image of the kinds {', '.join(FORMATS)}"
    return re.sub(r" ?'?<[^<>]* at 0x[0-9a-fA-F]+>'?", "", str(error)) or type(error).__name__


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise DataError(
            "images are decoded by Pillow, which is not installed",
            fix="pip install 'hamflow[pipeline]' (or pip install pillow), then prepare again",
        ) from error
    return Image
