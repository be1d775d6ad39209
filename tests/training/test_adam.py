"""Adam: torch's own bits, without torch's compiler."""

import subprocess
import sys

import torch

from hamflow.training.adam import Adam


def trained(kind, steps=20):
    """(weights, state) of a small network after some steps, half of them after its state was saved and loaded."""
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.SiLU(), torch.nn.Linear(8, 3))
    options = {"lr": 1e-2, "betas": (0.9, 0.99)}
    optimiser = kind(network.parameters(), **options)
    for step in range(steps):
        if step == steps // 2:
            state = optimiser.state_dict()
            optimiser = kind(network.parameters(), **options)
            optimiser.load_state_dict(state)
        optimiser.zero_grad(set_to_none=True)
        network(torch.randn(16, 3)).square().mean().backward()
        optimiser.step()
    return list(network.parameters()), optimiser.state_dict()


def test_weights_and_state_are_those_of_torch_bit_for_bit():
    (weights, state), (expected, expected_state) = trained(Adam), trained(torch.optim.Adam)
    assert all(torch.equal(a, b) for a, b in zip(weights, expected, strict=True))
    assert state["param_groups"] == expected_state["param_groups"]
    for index, moments in expected_state["state"].items():
        assert all(torch.equal(state["state"][index][name], value) for name, value in moments.items())


def test_the_compiler_is_not_imported():
    code = """
import sys, torch
from hamflow.training.adam import Adam
network = torch.nn.Linear(2, 2)
optimiser = Adam(network.parameters())
network(torch.ones(1, 2)).sum().backward()
optimiser.step()
optimiser.zero_grad()
optimiser.load_state_dict(optimiser.state_dict())
print("torch._dynamo" in sys.modules)
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout == "False\n"
