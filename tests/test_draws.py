"""Random streams: each a function of a seed and of names, and no two of them equal."""

import ast
import itertools
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

import hamflow
from hamflow.draws import BatchDraws, DataOrder, SampleDraws, generator, key, normal_like, seeded, unit_noise

MAKERS = {"generator", "seeded", "BatchDraws", "DataOrder"}  # what makes a stream from names


def streams_of_the_code():
    """(where, the names) of every stream that the package makes; what is no literal is `...`."""
    found = []
    for path in sorted(Path(hamflow.__file__).parent.rglob("*.py")):
        if path.name == "draws.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            place, _, maker = ast.unparse(node.func).rpartition(".")
            if maker in MAKERS and place in ("", "draws"):
                names = [a.value if isinstance(a, ast.Constant) else ... for a in node.args[2 if maker == "seeded" else 1 :]]
                if maker == "DataOrder":
                    names = ["order", *names]
                found.append((f"{path.name}:{node.lineno}", tuple(names)))
    return found


def may_coincide(one, other):
    """Whether two tuples of names could be equal: nothing but literals tells them apart."""
    return len(one) == len(other) and all(a is ... or b is ... or a == b for a, b in zip(one, other, strict=True))


def test_no_two_places_of_the_code_make_the_same_stream():
    streams = streams_of_the_code()
    assert len(streams) > 10
    alike = [(a, b) for a, b in itertools.combinations(streams, 2) if may_coincide(a[1], b[1])]
    assert alike == []
    assert all(isinstance(names[0], str) for _, names in streams), "the first name of a stream is a literal"


def test_nothing_else_makes_random_numbers():
    """Outside draws.py no other generator is made, and no global one is seeded or asked."""
    words = ("default_rng", "SeedSequence", "Philox", "manual_seed", "torch.randn(", "torch.rand(", "np.random.seed")
    for path in Path(hamflow.__file__).parent.rglob("*.py"):
        if path.name != "draws.py":
            assert not [word for word in words if word in path.read_text()], path


def test_streams_of_different_names_differ_in_their_first_numbers():
    """Also those that padding or joining of the names would confuse."""
    names: list[tuple] = [(), ("a",), ("a", 0), ("a", 0, 0), ("a", "0"), (0, "a"), ("a0",), ("a", ""), ("a,0",)]
    names += [(1000,), (1000, 0), ("b", "a"), ("ab",), ("a", "b"), ("a", "b", 0)]
    streams = [(seed, *name) for seed in (0, 1, 1000) for name in names]
    first = Counter(tuple(generator(*stream).integers(2**63, size=2)) for stream in streams)
    assert set(first.values()) == {1}
    assert len({key(*stream) for stream in streams}) == len(streams)


def test_a_stream_is_the_same_everywhere():
    """The very numbers: a change of how streams are made changes every result."""
    assert key(0, "training", 7) == 0x986FA617037E077655B0DB7CDE4E1FA2
    assert generator(1, "a").integers(1000, size=3).tolist() == [252, 566, 425]


def test_the_data_order_is_one_permutation_after_the_other():
    order = DataOrder(0, "x", count=10).rows(0, 30)
    assert [sorted(order[i : i + 10]) for i in (0, 10, 20)] == [list(range(10))] * 3
    assert not np.array_equal(order[:10], order[10:20])


def test_the_data_order_may_be_asked_for_in_any_pieces():
    order = DataOrder(4, "x", count=10)
    whole = order.rows(0, 95)
    assert np.array_equal(np.concatenate([order.rows(k, 19) for k in range(0, 95, 19)]), whole)
    assert np.array_equal(order.rows(33, 5), whole[33:38])
    for other in (DataOrder(5, "x", count=10), DataOrder(4, "y", count=10)):
        assert not np.array_equal(other.rows(0, 95), whole)


def test_draws_of_a_batch_are_a_function_of_seed_and_names():
    def draws(*stream):
        return BatchDraws(*stream, batch=16)

    first, again = draws(1, "t", 7), draws(1, "t", 7)
    assert torch.equal(first.uniform("time"), again.uniform("time"))  # in whatever order they are asked for
    assert torch.equal(first.normal("noise", (3,)), again.normal("noise", (3,)))
    assert torch.equal(first.normal("noise", (3,)), again.normal("noise", (3,)))
    for other in (draws(1, "t", 8), draws(2, "t", 7), draws(1, "s", 7)):
        assert not torch.equal(first.normal("noise", (3,)), other.normal("noise", (3,)))
    assert not torch.equal(first.normal("noise", (3,)), first.normal("other", (3,)))


@pytest.mark.parametrize("parts", [[slice(0, 5), slice(5, 16)], [slice(0, 16, 2), slice(1, 16, 2)]])
def test_parts_of_a_batch_have_its_draws(parts):
    """Of microbatches, and of ranks."""
    whole = BatchDraws(1, "t", batch=16)
    for rows in parts:
        part = BatchDraws(1, "t", batch=16).part(rows)
        assert torch.equal(part.normal("noise", (2, 2)), whole.normal("noise", (2, 2))[rows])
        assert torch.equal(part.uniform("time"), whole.uniform("time")[rows])


def test_uniform_draws_are_stratified():
    u = BatchDraws(0, "t", batch=64).uniform("time")
    assert sorted((u * 64).floor().long().tolist()) == list(range(64))
    assert u.tolist() != sorted(u.tolist())
    assert 0 < float(u.min()) < float(u.max()) < 1


def test_a_row_of_samples_depends_on_its_seed_alone():
    together = unit_noise(range(5, 25), (3, 4))
    assert torch.equal(together[7], unit_noise([12], (3, 4))[0])
    assert torch.equal(together, torch.cat([unit_noise(range(5, 11), (3, 4)), unit_noise(range(11, 25), (3, 4))]))
    u = SampleDraws(range(5, 25)).uniform("radius")
    assert float(u[7]) == float(SampleDraws([12]).uniform("radius"))
    assert len(set(u.tolist())) == 20


def test_the_noise_of_samples_is_unit_normal_and_seeds_are_independent():
    noise = unit_noise(range(20_000), (4,))
    n = noise.numel()
    assert abs(float(noise.mean())) < 4 / math.sqrt(n)
    assert abs(float(noise.var()) - 1) < 4 * math.sqrt(2 / n)
    neighbours = (noise[1:] * noise[:-1]).mean()
    assert abs(float(neighbours)) < 4 / math.sqrt(n)


def test_no_seeds_no_rows():
    assert unit_noise([], (3, 2)).shape == (0, 3, 2)
    assert SampleDraws([]).uniform("radius").shape == (0,)


def test_global_generators_are_given_back_as_they_were():
    before = torch.random.get_rng_state()
    with seeded("cpu", 0, "weights"):
        first = torch.rand(3)
    unit_noise(range(3), (2,))
    BatchDraws(0, "t", batch=3).normal("noise", (2,))
    assert torch.equal(before, torch.random.get_rng_state())
    with seeded("cpu", 0, "weights"):
        assert torch.equal(first, torch.rand(3))
    with seeded("cpu", 0, "dropout"):
        assert not torch.equal(first, torch.rand(3))


def test_numbers_do_not_depend_on_the_type_that_they_are_wanted_in():
    double = normal_like(generator(0, "x"), torch.zeros(5, dtype=torch.float64))
    torch.testing.assert_close(normal_like(generator(0, "x"), torch.zeros(5)).double(), double, rtol=0, atol=1e-7)
