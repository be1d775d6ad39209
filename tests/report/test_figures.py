"""The figures of a preset: twice the same bytes, the labels of the parameters whatever these hold, mistakes explained."""

import itertools
import re
import subprocess
import sys
from itertools import combinations

import matplotlib.colors
import numpy as np
import pytest
import torch

from hamflow import data
from hamflow.errors import DataError
from hamflow.files import save_array, save_tensors
from hamflow.pipeline.paths import Preset
from hamflow.pipeline.records import MetricsError
from hamflow.report import figures, style
from hamflow.report.figures import memorised
from hamflow.report.figures.nfe import ticks
from hamflow.report.figures.samples import COLUMNS, GAP, mosaic
from hamflow.report.tables import tabulate

OPTIONS = {"digits": {}, "rings": {"count": 300, "seed": 0}}
LABEL = "_50% of $a, {b}$ \\ <i>*EDM*</i>"  # as hostile as a label may be
PARAMETERS = {
    "preset": "toy",
    "seeds": [0, 1],
    "run": {"datasets": ["digits", "rings"], "methods": ["edm", "oscillation"]},
    "datasets": {
        name: {"label": f"{name} $x$", "n_samples": 9, "features": "points", "conditional": False, "training": {}}
        for name in OPTIONS
    },
    "methods": {"edm": {"label": LABEL}, "oscillation": {"label": "Oscillation HGF", "samplers": {"euler": [3]}}},
    "training": {"train_kimg": 5},
    "sampling": {"settings": {"heun": [5, 9], "multistep": [5]}},
}
MEMORISATION = PARAMETERS | {
    "evaluation": {"more": ["memorisation"]},
    "datasets": PARAMETERS["datasets"] | {"digits": PARAMETERS["datasets"]["digits"] | {"features": "efficientnet_lite0"}},
}
KINDS = {name: kind for kind in figures.kinds() for name in kind.names(PARAMETERS)}


@pytest.fixture(scope="module")
def preset(tmp_path_factory):
    """Data, samples and checkpoints of two data sets and two methods."""
    preset = Preset("toy", tmp_path_factory.mktemp("preset"))
    for dataset, options in OPTIONS.items():
        data.prepare({"name": dataset, "source": dataset, "options": options}, preset.data(dataset))
        rows = np.array(data.load(preset.data(dataset)).rows[:100])
        for method, setting in (("edm", "heun-nfe9"), ("oscillation", "euler-nfe3")):
            for seed in (0, 1):
                run = preset.run(dataset, method, seed)
                save_array(run.samples / f"{setting}.npy", rows)
                curve = [{"kimg": float(k), "loss": 1 / k} for k in range(1, 6)]
                save_tensors(run.checkpoint, {"weight": torch.zeros(1)}, {"history": curve})
    return preset


@pytest.fixture
def there(preset, metrics, monkeypatch):
    """The working directory of the preset, with its table."""
    monkeypatch.chdir(preset.root)
    tabulate(metrics, preset.table(""))
    return preset


def texts_of(monkeypatch) -> list:
    """Every text of the figures drawn from now on, as matplotlib is given it."""
    found, save = [], style._save

    def keep(figure, path, metadata):
        save(figure, path, metadata)
        found.extend(text.get_text() for text in figure.findobj(matplotlib.text.Text))

    monkeypatch.setattr(style, "_save", keep)
    return found


def test_the_figures_of_a_preset_are_those_of_the_folder():
    assert sorted(KINDS) == ["nfe", "samples-digits", "samples-rings", "training"]


@pytest.mark.parametrize("name", sorted(KINDS))
def test_each_figure_is_drawn_and_depends_on_its_inputs_alone(name, there, tmp_path):
    for folder in "ab":
        KINDS[name].draw(PARAMETERS, name, tmp_path / folder / "figure.png")
    for suffix, magic in ((".png", b"\x89PNG"), (".pdf", b"%PDF")):
        first, second = ((tmp_path / folder / f"figure{suffix}").read_bytes() for folder in "ab")
        assert first.startswith(magic)
        assert first == second
        assert re.search(rb"CreationDate|20\d\d-\d\d-\d\d", first) is None


@pytest.mark.parametrize("name", sorted(KINDS))
def test_each_input_is_there_and_without_any_there_is_no_figure(name, there, tmp_path):
    paths = [path for found in KINDS[name].inputs(PARAMETERS, name).values() for path in np.atleast_1d(found)]
    assert paths
    assert all(path.exists() for path in paths)
    for path in paths:
        path.rename(path.with_suffix(".away"))
        with pytest.raises(Exception, match=re.escape(str(path))) as refused:
            KINDS[name].draw(PARAMETERS, name, tmp_path / "figure.png")
        path.with_suffix(".away").rename(path)
        assert isinstance(refused.value, DataError) or name == "training"  # there it is a CheckpointError
    assert not list(tmp_path.glob("figure*"))


@pytest.mark.parametrize("name", sorted(KINDS))
def test_labels_are_those_of_the_parameters_whatever_they_hold(name, there, tmp_path, monkeypatch):
    found = texts_of(monkeypatch)
    if name == "nfe":  # the table was made with the labels of its records
        path = there.table("table1.csv")
        path.write_text(path.read_text().replace(",EDM,", f",{LABEL},".replace(LABEL, f'"{LABEL}"')))
    KINDS[name].draw(PARAMETERS, name, tmp_path / "figure.png")
    assert any(text.split("\n")[0] == LABEL.replace("$", r"\$") for text in found)
    datasets = [name.removeprefix("samples-")] if name.startswith("samples") else list(OPTIONS)
    assert all(any(text.startswith(f"{dataset} \\$x\\$") for text in found) for dataset in datasets)


@pytest.mark.parametrize("name", sorted(KINDS))
def test_a_caption_names_the_preset_and_is_plain_text(name):
    caption = KINDS[name].caption(PARAMETERS, name)
    assert "reset toy" in caption
    assert re.search(r"\$", re.sub(r"\\\$", "", caption)) is None


def test_what_snakemake_asks_for_is_light():
    code = "import sys\nfrom hamflow.report import figures\n[kind.names for kind in figures.kinds()]\n"
    code += "assert not {'torch', 'matplotlib', 'pandas', 'numpy'} & set(sys.modules), sorted(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_the_mosaic_holds_each_image_at_its_place():
    images = np.random.default_rng(0).integers(0, 256, (COLUMNS + 1, 5, 4, 3), dtype=np.uint8)
    picture = mosaic(images)
    assert np.array_equal(picture[:5, :4], images[0])
    assert np.array_equal(picture[:5, (COLUMNS - 1) * (4 + GAP) :], images[COLUMNS - 1])
    assert np.array_equal(picture[5 + GAP : 10 + GAP, :4], images[COLUMNS])
    assert (picture[5] == 255).all()


def test_samples_are_of_the_first_seed_at_each_methods_largest_budget(there):
    inputs = KINDS["samples-rings"].inputs(PARAMETERS, "samples-rings")
    runs = {method: Preset("toy").run("rings", method, 0).samples for method in ("edm", "oscillation")}
    assert inputs["samples"] == [runs["edm"] / "heun-nfe9.npy", runs["oscillation"] / "euler-nfe3.npy"]


def test_samples_of_other_data_are_refused(there, tmp_path):
    path = there.run("rings", "edm", 0).samples / "heun-nfe9.npy"
    kept = path.read_bytes()
    path.write_bytes((there.run("digits", "edm", 0).samples / "heun-nfe9.npy").read_bytes())
    with pytest.raises(DataError, match="uint8"):
        KINDS["samples-rings"].draw(PARAMETERS, "samples-rings", tmp_path / "figure.png")
    path.write_bytes(kept)
    assert not list(tmp_path.glob("figure*"))


def test_the_discrepancy_of_a_model_is_no_sampler_in_the_figure(
    there, metrics, make_result, write_result, tmp_path, monkeypatch
):
    """Its rows have no NFE to be drawn at."""
    hsd = {"hsd@sigma=0.1": {"value": 0.1, "n": 1797, "features": "features"}}
    write_result(metrics, make_result("digits", "edm", sampler="none", nfe=0, metrics=hsd), "hsd")
    tabulate(metrics, there.table(""))
    found = texts_of(monkeypatch)
    KINDS["nfe"].draw(PARAMETERS, "nfe", tmp_path / "figure.png")
    assert "sampler heun" in found
    assert "sampler none" not in found
    table = there.table("table1.csv")
    table.write_text("\n".join(line for line in table.read_text().splitlines() if not re.search("heun|multi|real", line)))
    with pytest.raises(MetricsError, match="no metrics of samples of data set 'digits'"):
        KINDS["nfe"].draw(PARAMETERS | {"run": {"datasets": ["digits"], "methods": ["edm"]}}, "nfe", tmp_path / "b.png")


def test_the_nearest_training_image_stands_below_its_sample_where_memorisation_is_asked_for(
    there, make_result, write_result, tmp_path, monkeypatch
):
    """The pairs are those of the metrics; the share stands beside the method."""
    assert memorised.names(PARAMETERS) == []
    assert memorised.names(MEMORISATION) == ["memorised-digits"]
    samples, training = np.random.default_rng(0).integers(0, 255, (2, 5, 4, 4, 1), dtype=np.uint8)
    seen = memorised.picture(samples, training, [[3, 1, 0.5], [0, 4, 0.6]])
    assert np.array_equal(seen[:4, :4], samples[3][..., 0])
    assert np.array_equal(seen[5:, 5:], training[4][..., 0])
    row = {"value": 0.125, "n": 100, "features": "x", "nearest": [[k, 99 - k, float(k)] for k in range(16)]}
    for method, sampler, nfe in (("edm", "heun", 9), ("oscillation", "euler", 3)):
        content = make_result("digits", method, sampler=sampler, nfe=nfe, metrics={"memorised_x": row})
        write_result(there.metrics, content)
    found = texts_of(monkeypatch)
    memorised.draw(MEMORISATION, "memorised-digits", tmp_path / "figure.png")
    assert "Oscillation HGF: share 0.125" in found
    assert "preset toy" in memorised.caption(MEMORISATION, "memorised-digits")
    write_result(there.metrics, content | {"metrics": {"memorised_x": row | {"nearest": []}}})
    with pytest.raises(DataError, match="says nothing of memorisation"):
        memorised.draw(MEMORISATION, "memorised-digits", tmp_path / "figure.png")


def distance(one: str, other: str) -> float:
    return float(np.linalg.norm(np.subtract(matplotlib.colors.to_rgb(one), matplotlib.colors.to_rgb(other))))


def test_sixteen_methods_are_told_apart_and_the_known_ones_keep_their_look():
    methods = ["edm", "flow_matching", "oscillation", "reflection", *(f"method{i}" for i in range(12))]
    looks = style.looks(methods)
    assert len({look.marker for look in looks.values()}) == 16
    assert all(distance(a.colour, b.colour) > 0.15 for a, b in combinations(looks.values(), 2))
    again = style.looks(["ours", "edm"])
    assert again["edm"][:2] == looks["edm"][:2]
    assert again["ours"][:2] == looks["method0"][:2]


def test_a_method_that_lies_below_another_is_wider():
    widths = [look.width for look in style.looks(["edm", "flow_matching", "oscillation"]).values()]
    assert widths == sorted(widths, reverse=True)
    assert widths[0] > 1.5 * widths[-1]


def test_a_gan_has_a_figure_of_its_signs_and_its_probability(there, tmp_path):
    """Of its runs alone: there is none in a preset without."""
    (kind,) = [kind for kind in figures.kinds() if kind.__name__.endswith(".adversarial")]
    assert kind.names(PARAMETERS) == []
    gan = {"label": LABEL, "kind": "gan", "target": 0.5}
    parameters = PARAMETERS | {"run": {"datasets": ["digits"], "methods": ["edm", "gan"]}}
    parameters["methods"] = PARAMETERS["methods"] | {"gan": gan}
    assert kind.names(parameters) == ["adversarial"]
    paths = kind.inputs(parameters, "adversarial")["checkpoints"]
    assert [path.resolve() for path in paths] == [there.run("digits", "gan", seed).checkpoint.resolve() for seed in (0, 1)]
    for path in paths:
        curve = [{"kimg": float(k), "loss": 1.0, "sign": 0.1 * k, "p": 0.01 * k} for k in range(1, 6)]
        save_tensors(path, {"weight": torch.zeros(1)}, {"history": curve})
    for folder in "ab":
        kind.draw(parameters, "adversarial", tmp_path / folder / "figure.png")
    assert (tmp_path / "a/figure.png").read_bytes() == (tmp_path / "b/figure.png").read_bytes()
    assert "target" in kind.caption(parameters, "adversarial")
    for folder, sign in (("c", 0.5), ("d", -0.5)):  # a single report is seen, too
        for path in paths:
            save_tensors(path, {"weight": torch.zeros(1)}, {"history": [{"kimg": 1.0, "loss": 1.0, "sign": sign, "p": 0.0}]})
        kind.draw(parameters, "adversarial", tmp_path / folder / "figure.png")
    assert (tmp_path / "c/figure.png").read_bytes() != (tmp_path / "d/figure.png").read_bytes()
    save_tensors(paths[0], {"weight": torch.zeros(1)}, {"history": [{"kimg": 1.0, "loss": 1.0}]})
    with pytest.raises(DataError, match="has no signs"):
        kind.draw(parameters, "adversarial", tmp_path / "figure.png")


def test_numbers_below_an_axis_keep_apart():
    """Of 8 and 9 the one of more lines stays."""
    import pandas as pd

    assert ticks(pd.Series([1, 8, 9, 9, 35, 35, 104])) == [1, 9, 35, 104]
    assert ticks(pd.Series([5, 9, 17, 35])) == [5, 9, 17, 35]
    assert ticks(pd.Series([9])) == [9]


@pytest.mark.parametrize("count", [3, 13])
def test_a_long_legend_leaves_the_panels_their_height(tmp_path, count):
    with style.panels(tmp_path / "a.png", 1, 1, width=3.7, height=2.9, margin=0.9) as (figure, panels):
        style.legend(figure, [({"color": "k"}, f"method {k}") for k in range(count)], ncols=1)
        figure.draw_without_rendering()
        assert panels[0].get_position().height * figure.get_figheight() > 1.8


@pytest.mark.parametrize("letters", [12, 30, 38, 60])
def test_no_title_reaches_into_the_next_panel(tmp_path, letters):
    titles = ["real data", ("Oscillation HGF of many WORDS, " * 2)[:letters] + "\nbns, 5 NFE"] * 2
    with style.panels(tmp_path / "figure.png", 4, 5, width=2.15, height=2.35, margin=0.6) as (figure, panels):
        for axes, title in zip(panels, titles, strict=True):
            axes.set_title(title, fontsize=style.title_size(titles, 2.15))
        figure.canvas.draw()
        boxes = [axes.title.get_window_extent() for axes in panels]
        assert all(left.x1 < right.x0 for left, right in itertools.pairwise(boxes))
        assert boxes[-1].x1 <= figure.get_figwidth() * figure.dpi
    assert style.title_size(titles, 100) == 10


@pytest.mark.parametrize("columns", [1, 3])
def test_a_wide_legend_is_not_cut_off(tmp_path, columns):
    with style.panels(tmp_path / "figure.png", 1, 1, width=3.7, height=2.9, margin=0.9) as (figure, _):
        entries = [({"color": "k"}, f"a method whose label says much of it, {k}") for k in range(6)]
        style.legend(figure, entries, ncols=columns)
        figure.canvas.draw()
        (legend,) = figure.legends
        box = legend.get_window_extent()
        assert box.x0 >= 0
        assert box.x1 <= figure.get_figwidth() * figure.dpi
