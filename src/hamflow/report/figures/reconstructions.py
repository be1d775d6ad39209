"""What autoencoders keep of images: real images above what is decoded of them."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hamflow.pipeline import targets
from hamflow.pipeline.paths import Preset
from hamflow.report import style
from hamflow.report.figures.samples import PAPER_WHITE, mosaic, show

if TYPE_CHECKING:
    import numpy as np

KINDS = ("vae", "latent", "lsgm")  # whose generators have `reconstruct`
PANELS_A_ROW, WIDTH = 3, 2.8  # inches of a panel
PAIRS, COLUMNS = 3, 8  # rows of real images, each with one of reconstructions below it; images a row


def names(parameters: Mapping[str, Any]) -> list[str]:
    return [f"reconstructions-{dataset}" for dataset in parameters["run"]["datasets"] if _methods(parameters, dataset)]


def inputs(parameters: Mapping[str, Any], name: str) -> dict[str, list[Path] | Path]:
    manifest = Preset(parameters["preset"]).data(_dataset(name)) / "dataset.json"
    return {"manifest": manifest, "checkpoints": list(_checkpoints(parameters, name).values())}


def caption(parameters: Mapping[str, Any], name: str) -> str:
    label = style.rest(parameters["datasets"][_dataset(name)]["label"])
    return (
        f"{label}, preset {parameters['preset']}: the first {PAIRS * COLUMNS} real images, and below each row what the "
        f"autoencoder makes of it by way of the mean of q(z | x), training seed {parameters['seeds'][0]}. The title has the "
        "root mean square difference over these images, in data units."
    )


def draw(parameters: Mapping[str, Any], name: str, output: Path) -> None:
    """A panel a method: rows of real images, and of their reconstructions.

    Raises:
        DataError, CheckpointError: no data, or a checkpoint that is not there.
    """
    import numpy as np

    from hamflow.data import load as load_data
    from hamflow.methods import load

    dataset = load_data(Preset(parameters["preset"]).data(_dataset(name)))
    count = min(PAIRS * COLUMNS, dataset.count)
    x, _ = dataset.batch(np.arange(count))
    found = _checkpoints(parameters, name)
    with style.panels(output, len(found), PANELS_A_ROW, WIDTH, 2.5, 0.6) as (figure, panels):
        for axes, (method, checkpoint) in zip(panels, found.items(), strict=True):
            again: Any = load(checkpoint)
            decoded = again.reconstruct(x)
            show(axes, _sheet(dataset.rows[:count], dataset.to_pixels(decoded.double())))
            error = float((decoded - x).square().mean().sqrt())
            title = f"{style.literal(parameters['methods'][method]['label'])}: {error:.3f}"
            axes.set_title(title, fontsize=style.title_size([title], WIDTH))
        label = style.literal(parameters["datasets"][dataset.name]["label"])
        figure.suptitle(f"{label}, preset {parameters['preset']}: reconstructions below real images", fontsize=10)


def _sheet(real: "np.ndarray", again: "np.ndarray") -> "np.ndarray":
    """uint8 [N, H, W, C] twice as one picture: rows of the one, below each its row of the other, with white gaps."""
    import numpy as np

    missing = [(0, PAIRS * COLUMNS - len(real)), (0, 0), (0, 0), (0, 0)]
    whole = (np.pad(images, missing, constant_values=PAPER_WHITE) for images in (real, again))
    rows = np.stack([images.reshape(PAIRS, COLUMNS, *real.shape[1:]) for images in whole], axis=1)
    return mosaic(rows.reshape(-1, *real.shape[1:]), 2 * PAIRS, COLUMNS)


def _dataset(name: str) -> str:
    return name.removeprefix("reconstructions-")


def _methods(parameters: Mapping[str, Any], dataset: str) -> list[str]:
    return [name for name in targets.methods(parameters, dataset) if parameters["methods"][name].get("kind") in KINDS]


def _checkpoints(parameters: Mapping[str, Any], name: str) -> dict[str, Path]:
    """Of each method that has an autoencoder, of the first seed."""
    preset, seed = Preset(parameters["preset"]), parameters["seeds"][0]
    return {method: preset.run(_dataset(name), method, seed).checkpoint for method in _methods(parameters, _dataset(name))}
