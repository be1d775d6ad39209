"""FID against clean-fid's own, by a small random network with the interface of the TorchScript Inception."""

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from hamflow import config
from hamflow.errors import ConfigurationError, DataError
from hamflow.metrics import features, frechet_distance_of, inception, suite
from hamflow.metrics.reference import summarise

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning", "ignore:The `disp` argument:DeprecationWarning")

MODES = {"inception": "legacy_tensorflow", "inception_clean": "clean"}
WAVES = 24  # features that vary; the others of the 2048 are zero


class Layers(nn.Module):
    """Pixels scaled to [-1, 1], [N, 3, 299, 299], to [N, 2048, 1, 1]: the mean colour, and waves of 4 x 4 thumbnails."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(3 * torch.randn(48, WAVES, generator=torch.Generator().manual_seed(0)))

    def forward(self, x):
        small = functional.adaptive_avg_pool2d(x, 4).flatten(1)
        found = torch.cat([x.mean((2, 3)), torch.sin(small @ self.weight)], 1)
        return functional.pad(found, (0, 2048 - found.shape[1]))[:, :, None, None]


class Network(nn.Module):
    """As inception-2015-12-05.pt: `layers`, and a forward pass that resizes and scales by itself."""

    def __init__(self):
        super().__init__()
        self.layers = Layers()

    def forward(self, x, return_features: bool = False):
        x = functional.interpolate(x.float(), (299, 299), mode="bilinear", align_corners=False)
        return self.layers((x - 128) / 128).flatten(1)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("inception") / "any-name.pt"
    torch.jit.save(torch.jit.script(Network().eval()), path)
    return {"path": str(path), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


@pytest.fixture(scope="module")
def images():
    """Two sets of smooth 32 x 32 colour images."""
    rng = np.random.default_rng(0)
    coarse = torch.from_numpy(rng.uniform(0, 255, (2, 60, 3, 5, 5)))
    coarse[1] = 0.7 * coarse[1] + 40
    fine = [functional.interpolate(part, (32, 32), mode="bicubic").clamp(0, 255) for part in coarse]
    return [part.round().byte().permute(0, 2, 3, 1).numpy() for part in fine]


def folder(path, images):
    from PIL import Image

    path.mkdir()
    for index, image in enumerate(images):
        Image.fromarray(image).save(path / f"{index:04}.png")
    return str(path)


def own_wrapper(cleanfid, file, mode, tmp_path):
    (tmp_path / "inception-2015-12-05.pt").write_bytes(Path(file["path"]).read_bytes())
    from cleanfid.inception_torchscript import InceptionV3W

    return InceptionV3W(str(tmp_path), download=False, resize_inside=mode == "legacy_tensorflow")


@pytest.mark.parametrize(("name", "mode"), MODES.items())
def test_features_and_distance_are_those_of_clean_fid(cleanfid, file, images, tmp_path, name, mode):
    """From its own reading of files on; its matrix root is taken of the features that vary alone, which is quick."""
    settings = {"num_workers": 0, "device": torch.device("cpu"), "mode": mode, "verbose": False}
    wrapper, network = own_wrapper(cleanfid, file, mode, tmp_path), features.build(name, **file)
    ours = [network.extract(part) for part in images]
    theirs = [
        cleanfid.get_folder_features(folder(tmp_path / str(k), part), wrapper, **settings) for k, part in enumerate(images)
    ]
    for own, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(own, other, atol=2e-5)
    varying = [part[:, : WAVES + 3] for part in theirs]
    exact = cleanfid.frechet_distance(*(f(part) for part in varying for f in (lambda x: x.mean(0), lambda x: np.cov(x.T))))
    assert frechet_distance_of(*ours) == pytest.approx(exact, rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "mode"), MODES.items())
def test_distance_is_that_of_compute_fid(cleanfid, file, images, tmp_path, name, mode):
    """All of clean-fid's own route, with its matrix root of 2048 dimensions."""
    own = frechet_distance_of(*(features.build(name, **file).extract(part) for part in images))
    theirs = cleanfid.compute_fid(
        *(folder(tmp_path / str(k), part) for k, part in enumerate(images)),
        mode=mode,
        custom_feat_extractor=own_wrapper(cleanfid, file, mode, tmp_path),
        device=torch.device("cpu"),
        num_workers=0,
        verbose=False,
    )
    assert own == pytest.approx(theirs, rel=1e-4)


def test_distance_is_that_of_torch_fidelity(cleanfid, file, images):
    """Their extractor cannot be fed this file, whose architecture it builds itself: their distance is of our features."""
    theirs = pytest.importorskip("torch_fidelity.metric_fid")
    found = [features.build("inception", **file).extract(part) for part in images]
    varying = [torch.from_numpy(part[:, : WAVES + 3]).double() for part in found]
    statistics = [theirs.fid_features_to_statistics(part) for part in varying]
    exact = theirs.fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]
    assert frechet_distance_of(*found) == pytest.approx(exact, rel=1e-3)


def measured(network, samples, real):
    reference = summarise(network.extract(real), {})
    return suite.measure(
        suite.Comparison("image", network.name, network.suffix, network.extract(samples), reference, None, network.names)
    )


@pytest.mark.parametrize(("name", "metrics"), [("inception", {"fid", "kid"}), ("inception_clean", {"clean_fid", "clean_kid"})])
def test_the_metric_has_the_name_of_the_literature_and_vanishes_on_equal_sets(file, images, name, metrics):
    found = measured(features.build(name, **file), images[0], images[0])
    assert metrics <= set(found)
    assert found[min(metrics)]["value"] == pytest.approx(0, abs=1e-6)
    assert found[min(metrics)]["n"] == len(images[0])
    assert suite.headline(found) == min(metrics)


@pytest.mark.parametrize("name", MODES)
def test_the_offline_default_is_never_called_fid(file, images, name):
    network = features.build("efficientnet_lite0")
    assert {key for key in measured(network, images[0][:9], images[1][:9]) if "fid" in key} == set()


@pytest.mark.parametrize("name", MODES)
def test_two_laws_of_the_colour_have_the_distance_of_their_means_and_deviations(file, name):
    """One colour an image, each channel a - s or a + s in all combinations: mean a and variance s^2 n / (n - 1), exactly."""
    signs = np.array(np.meshgrid(*3 * [[-1, 1]])).reshape(3, -1).T
    laws = [(np.array([100, 120, 140]), np.array([8, 16, 24])), (np.array([110, 90, 140]), np.array([24, 8, 12]))]
    sets = [(mean + signs * deviation).astype(np.uint8)[:, None, None].repeat(8, 1).repeat(8, 2) for mean, deviation in laws]
    found = [features.build(name, **file).extract(rows)[:, :3] for rows in sets]
    n, (mean, deviation) = len(signs), (np.subtract(*pair) / 128 for pair in zip(*laws, strict=True))
    assert frechet_distance_of(*found) == pytest.approx((mean**2).sum() + (deviation**2).sum() * n / (n - 1), rel=1e-5)


def test_features_of_an_image_depend_on_it_alone(file, images):
    network = features.build("inception", **file)
    together = network.extract(images[0][:19])
    assert np.array_equal(together, np.concatenate([network.extract(images[0][i : i + 1]) for i in range(19)]))


def test_the_file_must_be_named_and_the_right_one(file, tmp_path, monkeypatch):
    monkeypatch.delenv(inception.VARIABLE, raising=False)
    with pytest.raises(DataError, match="no Inception network is named"):
        features.build("inception")
    with pytest.raises(DataError, match="cannot be read"):
        features.build("inception", path=str(tmp_path / "absent.pt"))
    with pytest.raises(DataError, match=f"{file['sha256']}, not {inception.SHA256}"):
        features.build("inception", path=file["path"])
    monkeypatch.setenv(inception.VARIABLE, file["path"])
    assert features.build("inception", sha256=file["sha256"]).sha256 == file["sha256"]
    (tmp_path / "foreign.pt").write_bytes(b"no network")
    digest = hashlib.sha256(b"no network").hexdigest()
    with pytest.raises(DataError, match="no TorchScript network"):
        features.build("inception_clean", path=str(tmp_path / "foreign.pt"), sha256=digest)


def test_options_are_checked_before_any_job():
    files = ["params.yaml", "workflow/presets/smoke.yaml"]
    for setting, message in [
        ("evaluation.features.inception.sha256=abc", "evaluation.features.inception.sha256"),
        ("evaluation.features.inception.pth=x", "pth"),
        ("evaluation.features.incepton.path=x", "inception"),
        ("evaluation.more=[paired, kernel_eror]", "kernel_error"),
        ("datasets.checkerboard.reference=held_out", "compared with their law"),
        ("datasets.digits.reference=heldout", "held_out"),
    ]:
        with pytest.raises(ConfigurationError, match=message):
            config.load(files, [setting])


def test_specifications_name_options_only_where_they_are_given():
    files = ["params.yaml"]
    plain = config.evaluation_spec(config.load(files), "digits")
    assert {"options", "more", "reference"} & set(plain) == set()
    assert plain["dataset_label"] == "Digits 8x8"
    settings = ["datasets.digits.features=inception", "evaluation.features.inception.path=x.pt"]
    assert config.evaluation_spec(config.load(files, settings), "digits")["options"] == {"path": "x.pt"}
    held_out = config.evaluation_spec(config.load(files, ["datasets.digits.reference=held_out"]), "digits")
    assert (held_out["reference"], held_out["dataset_label"]) == ("held_out", "Digits 8x8, against held-out data")
    with pytest.raises(ConfigurationError, match="memorisation"):
        config.load(files, ["datasets.digits.reference=held_out", "evaluation.more=[memorisation]"])


def test_no_torchvision_is_needed(file):
    code = f"""
import sys
sys.modules["torchvision"] = None
from hamflow.metrics import features
for name in {list(MODES)}:
    features.build(name, **{file!r})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
