"""Moments and reference files: batching does not matter, bytes repeat, damage is told."""

import time

import numpy as np
import pytest

from hamflow.errors import DataError
from hamflow.metrics import reference
from hamflow.metrics.moments import Moments


@pytest.fixture
def rows():
    return np.random.default_rng(5).standard_normal((50, 4)).astype(np.float32)


@pytest.mark.parametrize("cuts", [[], [25], [1, 2, 49], [0, 10, 10, 50]])
@pytest.mark.parametrize("offset", [0.0, 1e7])
def test_moments_do_not_depend_on_the_batches(rows, cuts, offset):
    shifted = rows.astype(np.float64) + offset
    moments = Moments(4)
    for part in np.split(shifted, cuts):
        moments.add(part)
    assert moments.n == 50
    np.testing.assert_allclose(moments.mean, shifted.mean(0), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(moments.covariance, np.cov(rows.astype(np.float64).T), atol=1e-8)


def test_one_row_has_no_covariance(rows):
    moments = Moments(4)
    moments.add(rows[:1])
    with pytest.raises(ValueError, match="two rows"):
        _ = moments.covariance


def test_a_reference_comes_back_as_it_was(rows, tmp_path):
    made = reference.summarise(rows, {"dataset": "digits", "nested": {"a": [1]}})
    reference.save(tmp_path / "r.npz", made)
    read = reference.load(tmp_path / "r.npz")
    assert (read.n, read.facts, read.trace) == (50, made.facts, made.trace)
    for name in ("rows", "mean", "covariance"):
        assert np.array_equal(getattr(read, name), getattr(made, name))
        assert getattr(read, name).dtype == getattr(made, name).dtype


def test_equal_references_give_equal_bytes_whenever_they_are_written(rows, tmp_path, monkeypatch):
    made = reference.summarise(rows, {"dataset": "digits"})
    reference.save(tmp_path / "now.npz", made)
    later = time.time() + 86400
    monkeypatch.setattr(time, "time", lambda: later)
    reference.save(tmp_path / "later.npz", made)
    assert (tmp_path / "now.npz").read_bytes() == (tmp_path / "later.npz").read_bytes()


def test_only_so_many_rows_are_kept_but_all_are_counted(rows):
    made = reference.summarise(rows, {}, limit=10)
    assert (len(made.rows), made.n) == (10, 50)
    np.testing.assert_allclose(made.mean, rows.mean(0, dtype=np.float64), rtol=1e-12)
    assert made.trace == pytest.approx(rows.astype(np.float64).var(0, ddof=1).sum())


@pytest.mark.parametrize("keep", [0, 10, 300, -30])
def test_a_truncated_reference_is_a_paragraph(rows, tmp_path, keep):
    path = tmp_path / "r.npz"
    reference.save(path, reference.summarise(rows, {}))
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match="not a complete reference"):
        reference.load(path)


def test_a_flipped_byte_is_found(rows, tmp_path):
    path = tmp_path / "r.npz"
    reference.save(path, reference.summarise(rows, {}))
    content = bytearray(path.read_bytes())
    content[300] ^= 1  # within the rows, which the archive's checksum covers
    path.write_bytes(content)
    with pytest.raises(DataError, match="not a complete reference"):
        reference.load(path)


def test_another_archive_is_no_reference(tmp_path):
    np.savez(tmp_path / "r.npz", mean=np.zeros(3))
    with pytest.raises(DataError, match="not a complete reference"):
        reference.load(tmp_path / "r.npz")


def test_an_absent_reference_is_a_paragraph(tmp_path):
    with pytest.raises(DataError, match="hamflow evaluate"):
        reference.load(tmp_path / "r.npz")
