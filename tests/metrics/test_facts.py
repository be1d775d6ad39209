"""What registered metrics and feature networks say of themselves."""

import pytest

from hamflow.metrics import features, suite


@pytest.mark.parametrize(
    ("name", "short", "title"),
    [
        ("fd_enlite0", "FD", "Fréchet distance"),
        ("fd_my_own_net", "FD", "Fréchet distance"),
        ("fd_my_own_net_relative", "FD / trace", "Fréchet distance / trace of the data's covariance"),
        ("w2", "W2", "Wasserstein-2 distance (data units)"),
        ("hsd@sigma=0.1", "HSD", "Hamiltonian score discrepancy (a coordinate)"),
        ("fid", "FID", "FID"),
        ("clean_fid", "clean FID", "FID with clean-fid's resizing"),
        ("kid", "KID", "KID (unbiased)"),
        ("foreign", "foreign", "foreign"),
    ],
)
def test_a_metric_is_described_under_the_name_that_it_has_in_records(name, short, title):
    assert (suite.about(name).short, suite.about(name).title) == (short, title)


def test_the_metric_that_speaks_for_a_data_set_has_the_lowest_rank_whatever_the_order():
    assert suite.headline(["nll", "w2", "mmd"]) == "w2"
    assert suite.headline(["kd_x", "fd_x_relative", "fd_x"]) == "fd_x"
    assert suite.headline(["fd_x", "fid"]) == "fid"
    assert suite.headline(["zebra", "ant"]) == "ant"


def test_only_the_metrics_that_are_no_distances_say_another_direction():
    directions = {about.short: about.better for about in suite._ABOUT.values() if about.better != "lower"}
    assert directions == {
        "support": "higher",
        "NLL": "should equal the bound's",
        "precision": "higher",
        "recall": "higher",
        "density": "should equal the bound's",
        "coverage": "higher",
        "memorised": "should be .01",
    }


def test_every_feature_network_has_a_label():
    assert features.label("points") == "points"
    assert features.label("efficientnet_lite0") == "EfficientNet-Lite0"
    assert features.label("not_registered") == "not_registered"
