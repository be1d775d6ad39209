"""PFGM as a Hamiltonian flow: its published law and field, its denoiser, its limits."""

import math

import pytest
import torch
from scipy import integrate, stats

from hamflow import flows, parameterisation
from hamflow.draws import BatchDraws, SampleDraws
from hamflow.errors import ConfigurationError, NotOffered
from hamflow.laws.mixtures import GaussianMixture

LINE = torch.linspace(-5, 5, 31, dtype=torch.float64)[:, None]


@pytest.mark.parametrize("degrees", [1, 3, 16])
@pytest.mark.parametrize("dimension", [2, 64])
@pytest.mark.parametrize(
    "draws", [lambda: BatchDraws(1, batch=4000), lambda: SampleDraws(range(1000))], ids=["batch", "samples"]
)
def test_radii_have_the_law_of_the_published_sampler(dimension, degrees, draws):
    """PFGM++: R^2 = r^2 B / (1 - B) with r = T sqrt(D), B ~ Beta(N/2, D/2), that is T^2 D chi^2_N / chi^2_D."""
    flow = flows.build("pfgm", degrees=degrees, horizon=7.0)
    start = flow.terminal(flow.noise(draws(), (dimension,))).double()
    squares = start.square().sum(1) / (7.0**2 * degrees)
    assert stats.kstest(squares, stats.betaprime(dimension / 2, degrees / 2).cdf).pvalue > 0.01
    assert stats.kstest(start.sum(1) / (7.0 * math.sqrt(dimension)), stats.t(degrees).cdf).pvalue > 0.01


@pytest.mark.parametrize("degrees", [1.0, 2.5, 16.0])
def test_the_velocity_is_the_field_of_charges_in_more_dimensions(degrees):
    """Of equal charges at the data, D dimensions added: dx/dr = E_x / E_r at r = t sqrt(D), and dx/dt = sqrt(D) dx/dr."""
    rng = torch.Generator().manual_seed(0)
    data = torch.randn(5, 3, generator=rng, dtype=torch.float64)
    x = 2 * torch.randn(20, 3, generator=rng, dtype=torch.float64)
    flow, law = flows.build("pfgm", degrees=degrees), GaussianMixture([0.2] * 5, data, [1e-7] * 5)
    for t in (0.3, 2.0, 30.0):
        r = t * math.sqrt(degrees)
        away = x[:, None] - data
        force = (away.square().sum(2) + r**2) ** (-(3 + degrees) / 2)
        field = math.sqrt(degrees) * (force[..., None] * away).sum(1) / (r * force.sum(1)[:, None])
        torch.testing.assert_close(law.velocity_under(flow)(x, t), field, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("degrees", [1.0, 3.0, 50.0])
def test_the_denoiser_is_the_mean_by_quadrature(degrees, mixture):
    """E[x_0 | x_0 + t v = x] with Student's density of the noise, the data integrated on the line."""
    flow = flows.build("pfgm", degrees=degrees)
    parts = torch.stack([mixture.weights / mixture.sds[:, 0], mixture.means[:, 0], mixture.sds[:, 0]], 1).tolist()

    def weight(y, x, t):
        density = sum(height * math.exp(-(((y - m) / s) ** 2) / 2) for height, m, s in parts)
        return density * (1 + ((x - y) / t) ** 2 / degrees) ** (-(degrees + 1) / 2)

    for t in (0.2, 1.0, 9.0):
        for x in (-3.0, 0.1, 4.0):
            top, bottom = (
                integrate.quad(f, -12, 12, (x, t), points=[-2, 2, x], limit=200, epsabs=1e-12, epsrel=1e-11)[0]
                for f in (lambda y, x, t: y * weight(y, x, t), weight)
            )
            found = mixture.mean_under(flow, torch.tensor([[x]], dtype=torch.float64), t, (1.0, 0.0))
            assert float(found) == pytest.approx(top / bottom, abs=1e-9)


def test_very_many_degrees_are_diffusion_and_infinitely_many_are_it_exactly(mixture):
    diffusion, many = flows.build("diffusion"), flows.build("pfgm", degrees=1e6)
    for t in (0.1, 1.0, 20.0):
        exact = mixture.velocity_under(diffusion)(LINE, t)
        torch.testing.assert_close(mixture.velocity_under(many)(LINE, t), exact, rtol=0, atol=1e-4)
    rows = BatchDraws(0, batch=100)
    noise, normal = many.noise(rows, (8,)), diffusion.noise(rows, (8,))
    torch.testing.assert_close(noise, normal, rtol=0.01, atol=0)
    endless = flows.build("pfgm", degrees="infinity")
    assert torch.equal(endless.noise(rows, (8,)), normal)
    schemes = [parameterisation.build("edm", flow, 0.5) for flow in (diffusion, endless, many)]
    t = torch.rand(31, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    values = [s.velocity(lambda x, c, _: torch.sin(x) * c[:, None], LINE, t) for s in schemes]
    weights = [scheme.weight(LINE, t) for scheme in schemes]
    assert torch.equal(values[0], values[1])
    assert torch.equal(weights[0], weights[1])
    torch.testing.assert_close((values[0], weights[0]), (values[2], weights[2]), rtol=1e-4, atol=1e-4)


def test_scales_have_the_moments_of_the_chi_square_law():
    """E[g] = 1, Var[g] = 2 / D and E[1/g] = D / (D - 2)."""
    for degrees in (3.0, 7.5, 1e4):
        weights, scales = flows.build("pfgm", degrees=degrees).scales()
        g = scales**-2
        moments = [float(weights @ f) for f in (g, (g - 1).square(), 1 / g)]
        assert moments == pytest.approx([1, 2 / degrees, degrees / (degrees - 2)], rel=1e-4)


@pytest.mark.parametrize("degrees", [1.0, 8.0, 200.0])
def test_edms_network_has_nothing_to_say_about_gaussian_data(degrees):
    """Data N(0, s^2 I): c_skip x alone is the exact denoiser, whatever the tails of the noise."""
    flow, law = flows.build("pfgm", degrees=degrees), GaussianMixture([1.0], [[0.0] * 3], [0.5])
    scheme = parameterisation.build("edm", flow, 0.5)
    x = (
        torch.randn(30, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        * 10 ** torch.linspace(-1, 2, 30)[:, None]
    )
    for t in (0.01, 0.5, 20.0):
        found = scheme.velocity(lambda x, label, _: torch.zeros_like(x), x, t)
        torch.testing.assert_close(found, law.velocity_under(flow)(x, t), rtol=1e-10, atol=1e-10)


def test_what_edms_network_sees_and_its_loss_are_bounded_for_one_degree():
    """At D = 1 the largest |v| of a million coordinates is about 10^6; the input stays of order 1, the first loss finite."""
    flow, n = flows.build("pfgm", degrees=1.0), 20_000
    scheme, seen = parameterisation.build("edm", flow, 0.5), []
    x0 = 0.5 * torch.randn(n, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    v0 = flow.noise(BatchDraws(0, batch=n), (64,)).double()
    t = 10 ** torch.linspace(-2, 1, n, dtype=torch.float64)

    def network(x, label, _):
        seen.append(x)
        return torch.zeros_like(x)

    loss = flows.velocity_loss(lambda x, t: scheme.velocity(network, x, t), flow, x0, v0, t, scheme.weight)
    assert float(v0.abs().max()) > 1e3
    assert float(seen[0].square().mean(1).sqrt().max()) < 10
    assert float(loss.max()) < 1e3
    assert float(loss.mean()) == pytest.approx(1, abs=0.5)  # of a network that says nothing: EDM's units


def test_two_degrees_have_no_velocity_loss_and_no_flow_of_heavy_tails_a_score():
    for name in ("pfgm", "oscillation_student"):
        with pytest.raises(ConfigurationError, match="finite variance, but those of flow .* have 2 degrees"):
            parameterisation.build("velocity", flows.build(name, degrees=2.0), 0.5)
        with pytest.raises(NotOffered, match=f"'{name}' has no score"):
            flows.build(name).smoothed_score(lambda x, t: x, LINE, 0.5)
