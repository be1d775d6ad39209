"""The readers are fuzzed, not the disk."""

import os

import pytest


@pytest.fixture(autouse=True, scope="package")
def no_waiting_for_the_disk():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _file: None)
        yield
