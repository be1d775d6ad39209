"""Samplers that know the flow: orders on a mixture, exact cases, agreement with diffusers (which is no dependency)."""

import math

import pytest
import torch

from hamflow import config, flows
from hamflow.errors import ConfigurationError
from hamflow.laws.mixtures import GaussianMixture
from hamflow.sampling import count_evaluations, names, solve, steps_for, time_grid
from hamflow.sampling.denoising import exponential_weights
from hamflow.sampling.solvers import SOLVERS

KNOWING = sorted(name for name in names() if SOLVERS[name].knows_flow)
LAW = GaussianMixture([0.4, 0.6], [-1.0, 0.7], [0.5, 0.4])
LINEAR = [flows.build("diffusion"), flows.build("flow_matching"), flows.build("oscillation", alpha=1.5)]


def starts(flow, t):
    """Points of the law of x_t."""
    spread = float(LAW.carried_by(flow, t).variance.sqrt())
    return torch.linspace(-2, 2, 7, dtype=torch.float64)[:, None] * spread


@pytest.mark.parametrize("flow", LINEAR, ids=lambda flow: flow.name)
@pytest.mark.parametrize("sampler", KNOWING)
def test_order_on_a_mixture(flow, sampler):
    """Steps even in lambda from sigma = 200, where the denoiser is nearly constant: a start at low order costs nothing."""

    def grid(n):
        return flow.time(torch.logspace(math.log10(200), math.log10(0.3), n + 1, dtype=torch.float64))

    velocity = LAW.velocity_under(flow)
    x = starts(flow, float(grid(1)[0]))
    exact = solve("rk4", velocity, x, grid(1000))
    errors = [float((solve(sampler, velocity, x, grid(n), flow) - exact).abs().max()) for n in (80, 160, 320)]
    reached = {"ipndm": 3}.get(sampler, SOLVERS[sampler].order)  # its declared order is that of its start
    assert math.log2(errors[1] / errors[2]) == pytest.approx(reached, abs=0.2)


@pytest.mark.parametrize("nodes", [1, 3, 4])
@pytest.mark.parametrize("h", [1e-3, 0.4, 6.0])
def test_weights_integrate_polynomials_exactly(nodes, h):
    """The moments int_0^h e^(u - h) u^k du = h^k - k (moment k - 1), for k = 0 .. nodes - 1."""
    u = [0.0, h, -0.7 * h, -1.9 * h][:nodes]
    moment = -math.expm1(-h)
    for power in range(nodes):
        moment = h**power - power * moment if power else moment
        found = -math.expm1(-h) * sum(w * s**power for w, s in zip(exponential_weights(h, u), u, strict=True))
        assert found == pytest.approx(moment, rel=1e-9, abs=1e-13)


@pytest.mark.parametrize("flow", LINEAR, ids=lambda flow: flow.name)
@pytest.mark.parametrize("sampler", KNOWING)
def test_steps_from_pure_noise_to_the_data_are_finite_and_counted(flow, sampler):
    velocity = count_evaluations(LAW.velocity_under(flow))
    for steps in (1, 2, 9):
        velocity.count = 0
        x = solve(sampler, velocity, flow.terminal(torch.linspace(-2, 2, 9)[:, None]), time_grid(flow, steps), flow)
        assert bool(x.isfinite().all())
        assert velocity.count == steps == steps_for(sampler, steps)


@pytest.mark.parametrize("sampler", [name for name in KNOWING if name != "ipndm"])
def test_a_constant_denoiser_is_no_work(sampler):
    """One data point m: D = m, and each of these samplers returns it after any number of steps."""
    flow = flows.build("oscillation", alpha=2.0)

    def velocity(x, t):
        return flow.velocity_from_denoiser(x, torch.full_like(x, 0.3), t)

    x = solve(sampler, velocity, torch.tensor([[1.0], [-2.0]]), time_grid(flow, 4), flow)
    torch.testing.assert_close(x, torch.full_like(x, 0.3), rtol=0, atol=1e-12)


def test_ipndm_is_multistep_in_sigma():
    """For flow `diffusion` sigma is the time."""
    flow = flows.build("diffusion")
    velocity, times = LAW.velocity_under(flow), time_grid(flow, 9)
    x = flow.terminal(torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None])
    torch.testing.assert_close(
        solve("ipndm", velocity, x, times, flow), solve("multistep", velocity, x, times), rtol=1e-10, atol=0
    )


@pytest.mark.parametrize("sampler", sorted(set(KNOWING) - {"ipndm"}))
def test_the_flow_s_own_scale_does_not_matter(sampler):
    """In lambda all linear flows are one: equal noise levels and starts give equal samples."""
    sigmas = torch.logspace(1.5, -1, 9, dtype=torch.float64)
    found = []
    for flow in LINEAR:
        times = flow.time(sigmas)
        x = flow.coefficients(times[0])[0] * torch.linspace(-60, 60, 9, dtype=torch.float64)[:, None]
        found.append(solve(sampler, LAW.velocity_under(flow), x, times, flow) / flow.coefficients(times[-1])[0])
    torch.testing.assert_close(found[0], found[1], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found[0], found[2], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("given", [None, flows.build("reflection")])
def test_a_flow_without_a_denoiser_is_refused(given):
    with pytest.raises(ConfigurationError, match="dpmpp_2m.*denoiser"):
        solve("dpmpp_2m", lambda x, t: x, torch.ones(1, 1), torch.tensor([1.0, 0.5]), given)


@pytest.mark.parametrize("steps", [4, 9, 20])
@pytest.mark.parametrize(
    ("sampler", "scheduler", "options"),
    [
        ("dpmpp_2m", "DPMSolverMultistepScheduler", {"solver_order": 2, "final_sigmas_type": "zero"}),
        ("ddim", "DPMSolverMultistepScheduler", {"solver_order": 1, "final_sigmas_type": "zero"}),
        ("unipc", "UniPCMultistepScheduler", {"solver_order": 2}),
        ("unipc_3", "UniPCMultistepScheduler", {"solver_order": 3}),
        ("dpmpp_3m", "UniPCMultistepScheduler", {"solver_order": 3, "disable_corrector": list(range(100))}),
    ],
)
def test_diffusers_agrees(sampler, scheduler, options, steps):
    """Flow matching on the EDM grid from sigma = 80 to 0, exact velocities of the mixture."""
    diffusers = pytest.importorskip("diffusers")
    flow = flows.build("flow_matching")
    times = time_grid(flow, steps)
    times[0] = flow.time(torch.tensor(80.0, dtype=torch.float64))
    velocity = LAW.velocity_under(flow)
    theirs = getattr(diffusers, scheduler)(prediction_type="flow_prediction", use_flow_sigmas=True, **options)
    theirs.set_timesteps(steps)
    theirs.sigmas, theirs.timesteps = times, times[:-1] * 1000  # in its words sigma is t: x_t = (1 - t) x_0 + t n
    x = y = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
    for t, label in zip(times[:-1], theirs.timesteps, strict=True):
        y = theirs.step(velocity(y, t), label, y).prev_sample
    torch.testing.assert_close(solve(sampler, velocity, x, times, flow), y, rtol=0, atol=1e-5)


def test_a_preset_that_asks_a_flow_for_what_it_has_not_is_refused_before_any_job():
    only = ["run.methods=[flow_matching]", "sampling.settings={dpmpp_2m: [5]}"]
    config.load(["params.yaml"], only)
    with pytest.raises(ConfigurationError, match="'dpmpp_2m'.*'reflection'"):
        config.load(["params.yaml"], ["run.methods=[reflection]", *only[1:]])
