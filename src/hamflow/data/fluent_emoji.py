"""Microsoft's Fluent Emoji in 3-D: 3,391 colour pictures of 256 x 256 pixels on white; a free stand-in for faces."""

import hashlib
from functools import cache
from typing import Any

import numpy as np

from hamflow.data.finding import WHY, Download, Published
from hamflow.data.images import Collection
from hamflow.data.sources import Source, register
from hamflow.errors import DataError
from hamflow.files import fingerprint

TONES = frozenset(("1f3fb", "1f3fc", "1f3fd", "1f3fe", "1f3ff"))  # modifiers of the colour of skin
TEST = 0.1  # share of the base code points that is held out
FILTER = "box"  # 256 pixels become means of 8 x 8 or of 4 x 4
CONTENTS = {  # sha256 of the pictures' names and bytes, by `skin_tones`
    True: "ceb9e1bcdc41a3a5d0506e3c65dadae2933e723697bdeef1fb01b7457913ca50",
    False: "14e36ce69f2d9ba5c98d5a4f5f78a85f36db3dd8cbda475e4acc29e96eb80980",
}
PACKAGE, VERSION = "fluent-emoji-3d", "1.1.0"
ARCHIVE = f"lobehub-{PACKAGE}-{VERSION}.tgz"
PUBLISHED = Published(
    "fluent_emoji",
    names=(ARCHIVE, f"{PACKAGE}-{VERSION}.tgz"),
    packages=(
        *(ARCHIVE, f"node_modules/@lobehub/{PACKAGE}"),  # where `npm pack` and `npm install` put it
        *(f"{root}/lib/node_modules/@lobehub/{PACKAGE}" for root in ("/usr", "/usr/local")),
    ),
    install=f"npm pack @lobehub/{PACKAGE}@{VERSION} --ignore-scripts",
    downloads=(
        Download(
            f"https://registry.npmjs.org/@lobehub/{PACKAGE}/-/{PACKAGE}-{VERSION}.tgz",
            "c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58",
        ),
    ),
)


@register("fluent_emoji32")
def fluent_emoji32(path: str = "", skin_tones: bool = True) -> Source:
    """Fluent Emoji at 32 x 32 pixels. Every emoji with the same first code point, such as those of one person in all colours
    of skin, is in the same part, training or held out.

    Args:
        path: the package lobehub-fluent-emoji-3d-1.1.0.tgz, or the folder of its files; empty: see `Published.find`.
        skin_tones: whether variants in another colour of skin are taken: 3,391 emoji, else 1,871.
    Raises:
        ConfigurationError: the files are nowhere. DataError: they are others.
    """
    return _emoji(path, 32, skin_tones)


@register("fluent_emoji64")
def fluent_emoji64(path: str = "", skin_tones: bool = True) -> Source:
    """Fluent Emoji at 64 x 64 pixels; as `fluent_emoji32`."""
    return _emoji(path, 64, skin_tones)


def _emoji(path: str, resolution: int, skin_tones: bool) -> Source:
    collection = cache(lambda: Collection(PUBLISHED.find(path), lambda name: "" if skin_tones else toned(name)))

    def read() -> tuple[np.ndarray, None]:
        array, _ = collection().read(resolution, 3, FILTER)
        if contents(collection()) != CONTENTS[skin_tones]:
            raise DataError(
                f"{collection().path} is not Fluent Emoji {VERSION}: its {len(array)} pictures are others",
                why=WHY,
                fix=PUBLISHED.install,
            )
        return array, None

    return Source(
        "image",
        read=read,
        shape=(3, resolution, resolution),
        box=(-1.0, 1.0),
        licence="MIT",
        origin=f"Fluent Emoji 3D {VERSION} on white, resized to {resolution} x {resolution} ({FILTER} filter)",
        digest=lambda: contents(collection()),
        held_out=lambda: np.array([is_held_out(name) for name in collection().names]),
        contents=lambda: collection().contents,
    )


def code_points(name: str) -> list[str]:
    """Of the emoji of a file "assets/1f44b-1f3fb.webp": 1f44b, 1f3fb."""
    return name.rpartition("/")[2].partition(".")[0].split("-")


def toned(name: str) -> str:
    """Why a variant in another colour of skin is left out; "" for every other emoji."""
    return "variant of skin tone" if TONES & set(code_points(name)) else ""


def is_held_out(name: str) -> bool:
    """Whether an emoji is in the test part: a function of its first code point alone, so that no variant crosses over."""
    digest = hashlib.sha256(code_points(name)[0].encode()).digest()
    return int.from_bytes(digest[:8], "big") < TEST * 2**64


def contents(collection: Any) -> str:
    """A digest of the names and the bytes of pictures, in whatever folder or archive they lie."""
    return fingerprint({name.rpartition("/")[2]: digest for name, digest in collection.image_digests.items()})
