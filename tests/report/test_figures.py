"""Every figure: drawn from the files of a preset, twice the same bytes, and mistakes explained."""

import argparse
import re

import numpy as np
import pytest
import torch

from hamflow import data
from hamflow.errors import ConfigurationError, DataError
from hamflow.files import save_array, save_tensors
from hamflow.pipeline.records import MetricsError
from hamflow.report import commands, nfe, style
from hamflow.report.samples import COLUMNS, GAP, mosaic
from hamflow.report.sources import find_samples
from hamflow.report.tables import tabulate

SETTING = "heun-nfe9"
OPTIONS = {"digits": {}, "rings": {"count": 300, "seed": 0}}


@pytest.fixture(scope="module")
def preset(tmp_path_factory):
    """Data, samples and logs of two data sets and two methods."""
    root = tmp_path_factory.mktemp("preset")
    for dataset, options in OPTIONS.items():
        data.prepare({"name": dataset, "source": dataset, "options": options}, root / "data" / dataset)
        rows = np.array(data.load(root / "data" / dataset).rows[:100])
        for method in ("edm", "oscillation"):
            for seed in (0, 1):
                folder = root / "results/toy/samples" / dataset / method / f"seed{seed}"
                save_array(folder / f"{SETTING}.npy", rows)
                curve = [{"kimg": float(k), "loss": 1 / k} for k in range(1, 6)]
                path = root / "checkpoints/toy" / dataset / method / f"seed{seed}" / "model.safetensors"
                save_tensors(path, {"weight": torch.zeros(1)}, {"history": curve})
    return root


def plot(*words) -> None:
    """`hamflow plot ...` as the command line mounts it."""
    parser = argparse.ArgumentParser()
    commands.add_arguments(parser.add_subparsers())
    args = parser.parse_args(list(map(str, words)))
    commands.run(args)


def words_of(kind, root, table) -> list:
    """The command line of each kind of figure, without its output."""
    samples = ["--setting", SETTING, "--samples", root / "results/toy/samples"]
    return {
        "nfe": ["--table", table],
        "samples": ["--data", root / "data/digits", *samples[:-1], samples[-1] / "digits"],
        "points": ["--data", root / "data/rings", *samples[:-1], samples[-1] / "rings"],
        "training": ["--checkpoints", root / "checkpoints/toy"],
        "phase-space": [],
        "reflection": [],
    }[kind]


@pytest.mark.parametrize("kind", commands.PLOTS)
def test_each_kind_of_figure_is_drawn_and_depends_on_its_inputs_alone(kind, preset, metrics, tmp_path):
    tabulate(metrics, tmp_path)
    words = words_of(kind, preset, tmp_path / "table1.csv")
    for name in "ab":
        plot("plot", kind, *words, "--output", tmp_path / name / "figure.png")
    for suffix, magic in ((".png", b"\x89PNG"), (".pdf", b"%PDF")):
        first, second = ((tmp_path / name / f"figure{suffix}").read_bytes() for name in "ab")
        assert first.startswith(magic)
        assert first == second
        assert re.search(rb"CreationDate|20\d\d-\d\d-\d\d", first) is None


def test_one_data_set_can_be_drawn_alone(preset, metrics, tmp_path):
    tabulate(metrics, tmp_path)
    table = tmp_path / "table1.csv"
    plot("plot", "nfe", "--table", table, "--dataset", "rings", "--metric", "nll", "--output", tmp_path / "a.png")
    plot("plot", "training", *words_of("training", preset, None), "--dataset", "rings", "--output", tmp_path / "b.png")
    assert {path.name for path in tmp_path.glob("*.pdf")} == {"a.pdf", "b.pdf"}


def test_tabulate_takes_the_settings_that_it_is_told(metrics, tmp_path, capsys):
    names = sorted({path.stem for path in metrics.rglob("*.json")})
    plot("tabulate", "--metrics", metrics, "--output", tmp_path / "out", "--setting", *names[1:])
    assert names[0].split("-")[0] == "heun"
    samplers = [line.split(",")[5:7] for line in (tmp_path / "out" / "table1.csv").read_text().splitlines()]
    assert names[0] not in {f"{sampler}-nfe{nfe}" for sampler, nfe in samplers}
    assert len(samplers) > 1
    assert "preset toy" in capsys.readouterr().out


def test_samples_of_points_are_drawn_as_points(preset, tmp_path):
    words = words_of("points", preset, None)
    plot("plot", "samples", *words, "--output", tmp_path / "a.png")
    plot("plot", "points", *words, "--output", tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_the_mosaic_holds_each_image_at_its_place():
    images = np.random.default_rng(0).integers(0, 256, (COLUMNS + 1, 5, 4, 3), dtype=np.uint8)
    picture = mosaic(images)
    assert np.array_equal(picture[:5, :4], images[0])
    assert np.array_equal(picture[:5, (COLUMNS - 1) * (4 + GAP) :], images[COLUMNS - 1])
    assert np.array_equal(picture[5 + GAP : 10 + GAP, :4], images[COLUMNS])
    assert (picture[5] == 255).all()


def test_samples_are_found_by_setting_first_seed_first(preset):
    folder = preset / "results/toy/samples/digits"
    found = find_samples(folder, SETTING)
    assert [(s.method, s.label, s.preset) for s in found] == [
        ("edm", "EDM", "toy"),
        ("oscillation", "Oscillation HGF", "toy"),
    ]
    named = find_samples(folder, SETTING, names={"edm": "Ours"})  # others, from an earlier run perhaps, are left out
    assert [(s.method, s.label) for s in named] == [("edm", "Ours")]
    assert {s.path.parent.name for s in found} == {"seed0"}
    with pytest.raises(DataError, match=SETTING):
        find_samples(preset / "results/toy/samples/digits", "heun-nfe7")


def test_mistakes_are_explained_and_leave_no_figure(preset, metrics, tmp_path):
    tabulate(metrics, tmp_path / "tables")
    table, output = tmp_path / "tables" / "table1.csv", ["--output", tmp_path / "figure.png"]
    digits, rings = (words_of(kind, preset, None) for kind in ("samples", "points"))
    with pytest.raises(MetricsError, match="no data set 'digit'"):
        plot("plot", "nfe", "--table", table, "--dataset", "digit", *output)
    with pytest.raises(MetricsError, match="no metric 'fid'"):
        plot("plot", "nfe", "--table", table, "--metric", "fid", *output)
    with pytest.raises(DataError, match="no such checkpoint"):
        plot("plot", "training", "--checkpoints", tmp_path, *output)
    with pytest.raises(DataError, match="holds"):
        plot("plot", "samples", *digits[:-1], rings[-1], *output)
    with pytest.raises(DataError, match="holds"):
        plot("plot", "points", *rings[:-1], digits[-1], *output)
    with pytest.raises(DataError, match="no points"):
        plot("plot", "points", *digits, *output)
    with pytest.raises(ConfigurationError, match="METHOD=TEXT"):
        plot("plot", "samples", *digits, "--label", "edm", *output)
    with pytest.raises(MetricsError, match="no metrics"):
        plot("tabulate", "--metrics", metrics, "--setting", "heun-nfe999", *output)
    with pytest.raises(MetricsError, match="not a table1"):
        plot("plot", "nfe", "--table", tmp_path, *output)
    unsampled = [line for line in table.read_text().splitlines() if line.startswith("preset")]
    unsampled.append("toy,digits,false,edm,EDM,none,0,hsd@sigma=0.1,critic,500,1,0.1,,")
    (tmp_path / "unsampled.csv").write_text("\n".join(unsampled) + "\n")
    with pytest.raises(MetricsError, match="no metrics of samples"):
        plot("plot", "nfe", "--table", tmp_path / "unsampled.csv", *output)
    assert not list(tmp_path.glob("*.p*"))


def test_every_known_method_has_its_own_colour_and_marker():
    for table in (style.COLOURS, style.MARKERS):
        assert len(set(table.values())) == len(table)
    assert not set(style.SPARE_COLOURS) & set(style.COLOURS.values())


def test_the_discrepancy_of_a_model_is_no_sampler_in_the_figure(metrics, make_result, write_result, tmp_path, monkeypatch):
    """Its rows have no NFE to be drawn at."""
    hsd = {"hsd@sigma=0.1": {"value": 0.1, "n": 1797, "features": "features"}}
    write_result(metrics, make_result("digits", "edm", sampler="none", nfe=0, metrics=hsd), "hsd")
    tabulate(metrics, tmp_path)
    legends = []
    legend = nfe._legend
    monkeypatch.setattr(nfe, "_legend", lambda rows: legends.extend(legend(rows)) or legend(rows))
    nfe.plot_nfe(tmp_path / "table1.csv", tmp_path / "figure.png")
    labels = [handle.get_label() for handle in legends]
    assert "sampler heun" in labels
    assert "sampler none" not in labels
