"""The results of every study on tiny settings."""

import pytest
from tiny_studies import TINY

from hamflow.files import write_json
from hamflow.pipeline.paths import Preset
from hamflow.studies import run


@pytest.fixture(scope="session")
def results(tmp_path_factory):
    preset = Preset("toy", tmp_path_factory.mktemp("studies"))
    for kind, spec in TINY.items():
        write_json(preset.study(kind), run(kind, spec))
    return preset.study("mixture").parent
