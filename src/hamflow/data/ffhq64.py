"""FFHQ at 64 x 64 pixels: 70,000 photographs of faces, from files of the user's own."""

from functools import cache
from typing import Any

import numpy as np

from hamflow.data.finding import WHY, Published
from hamflow.data.images import Collection
from hamflow.data.sources import Rows, Source, register
from hamflow.errors import DataError

RESOLUTION = 64
FILTER = "box"  # means of 16 x 16 pixels of the originals
PUBLISHED = Published(
    "ffhq64",
    names=("ffhq-64x64.zip", "ffhq64.zip", "ffhq-1024x1024.zip", "images1024x1024.zip", "images1024x1024"),
    page="https://github.com/NVlabs/ffhq-dataset",
)


@register("ffhq64")
def ffhq64(path: str = "", count: Rows = 70000) -> Source:
    """FFHQ (Karras, Laine, Aila 2019), 64 x 64 pixels, resized by means as EDM does it. Nothing is held out.

    Args:
        path: a folder, zip or tar of the images of 1024 x 1024 pixels, or of 64 x 64, as NVlabs' dataset_tool writes them, with
            the labels of its dataset.json if it has any; empty: what HAMFLOW_DATA has.
        count: how many images there must be.
    Raises:
        ConfigurationError: the files are nowhere. DataError: they are more or fewer, or no images; see source `images`.
    """
    collection = cache(lambda: Collection(PUBLISHED.find(path)))

    def read() -> tuple[np.ndarray, Any]:
        if (found := len(collection().names)) != count:
            raise DataError(
                f"{collection().path} has {found} images, not {count}",
                why=WHY,
                fix="the whole of FFHQ; or, to insist on these, their number as options.count, under another name than ffhq64",
            )
        return collection().read(RESOLUTION, 3, FILTER)

    return Source(
        "image",
        read=read,
        shape=(3, RESOLUTION, RESOLUTION),
        box=(-1.0, 1.0),
        licence="CC BY-NC-SA 4.0 (the collection; each photograph has its own)",
        origin=f"FFHQ, resized to {RESOLUTION} x {RESOLUTION} ({FILTER} filter)",
        class_names=lambda: collection().arrangement.classes,
        digest=lambda: collection().digest,
        held_out=lambda: collection().arrangement.held_out,
        contents=lambda: collection().contents,
    )
