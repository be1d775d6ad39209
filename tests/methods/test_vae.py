"""Variational autoencoders: the bound in closed form, the likelihoods, annealing."""

import itertools

import pytest
import torch
from torch import nn

from hamflow import draws
from hamflow.draws import BatchDraws
from hamflow.errors import ConfigurationError, NotOffered
from hamflow.methods.base import METHODS, Facts, Sampling
from hamflow.methods.vae import EvidenceObjective, VAEGenerator, VariationalAutoencoder, divergence
from hamflow.networks.likelihoods import DiscretisedLogistic, Normal
from hamflow.training.fit import Batch

D, K = 5, 2
UNET = {"kind": "unet", "channels": 8, "multipliers": [1], "blocks": 1, "attention": []}
FACTS = Facts(name="digits", shape=(1, 8, 8), classes=0, sigma_data=0.6, box=(-1.0, 1.0), network=UNET)
# E of a quadratic function of unit normal noise in K dimensions is its mean over these: E n_i n_j = delta_ij
SIGNS = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=K)), dtype=torch.float64)


@pytest.fixture(scope="module")
def x():
    """Correlated data without a mean, [N, D]."""
    rng = draws.generator(0, "ppca")
    rows = torch.from_numpy(rng.standard_normal((200, D)) @ rng.standard_normal((D, D)))
    return rows - rows.mean(0)


def linear(scale=1.0):
    """q and p(x | z) with linear means and a variance of q that does not depend on x."""
    encoder, decoder = nn.Linear(D, 2 * K).double(), nn.Linear(K, D).double()
    return VariationalAutoencoder(encoder, decoder, Normal(scale).double(), (D,), (K,))


def optimum(x):
    """The linear autoencoder at the maximum likelihood of probabilistic PCA, and that likelihood a datum.

    Source: Tipping, Bishop 1999: p(x) = N(0, W W' + s^2 I), W = U (L - s^2)^{1/2}, s^2 the mean of the left eigenvalues.
    """
    covariance = x.T @ x / len(x)
    values, vectors = torch.linalg.eigh(covariance)
    values, vectors = values.flip(0), vectors.flip(1)
    s2 = values[K:].mean()
    w = vectors[:, :K] * (values[:K] - s2).sqrt()
    m = w.T @ w + s2 * torch.eye(K, dtype=x.dtype)  # diagonal, so that the exact posterior has independent coordinates
    vae = linear()
    with torch.no_grad():
        vae.encoder.weight.copy_(torch.cat([torch.linalg.solve(m, w.T), torch.zeros(K, D)]))
        vae.encoder.bias.copy_(torch.cat([torch.zeros(K), (s2 / m.diagonal()).log()]))
        vae.decoder.weight.copy_(w)
        vae.decoder.bias.zero_()
        vae.likelihood.log_scale.copy_(s2.log() / 2)
    law = torch.distributions.MultivariateNormal(torch.zeros(D, dtype=x.dtype), w @ w.T + s2 * torch.eye(D, dtype=x.dtype))
    return vae, law.log_prob(x)


def mean_bound(vae, x):
    """The bound of each datum, exact in the noise."""
    return torch.stack([vae.evidence_bound(x, noise.expand(len(x), K))[0] for noise in SIGNS]).mean(0)


def test_the_bound_of_a_linear_autoencoder_is_the_likelihood_of_probabilistic_pca(x):
    vae, log_prob = optimum(x)
    torch.testing.assert_close(mean_bound(vae, x), log_prob, rtol=1e-10, atol=1e-10)


def test_every_importance_weight_is_the_likelihood_where_the_posterior_is_exact(x):
    vae, log_prob = optimum(x)
    for latents in (1, 4):
        torch.testing.assert_close(VAEGenerator(vae).log_density(x, latents), log_prob, rtol=1e-10, atol=1e-10)


def test_the_optimum_of_probabilistic_pca_is_stationary_and_no_neighbour_is_better(x):
    vae, log_prob = optimum(x)
    mean_bound(vae, x).mean().backward()
    assert max(float(p.grad.abs().max()) for p in vae.parameters()) < 1e-10
    rng = draws.generator(0, "neighbours")
    for _ in range(10):
        other, _ = optimum(x)
        with torch.no_grad():
            for p in other.parameters():
                p += 0.1 * draws.normal_like(rng, p)
        assert float(mean_bound(other, x).detach().mean()) < float(log_prob.mean())


def test_training_the_bound_finds_probabilistic_pca(x):
    _, log_prob = optimum(x)
    with draws.seeded("cpu", 3, "linear"):
        vae = linear()
    optimiser = torch.optim.LBFGS(vae.parameters(), max_iter=120, line_search_fn="strong_wolfe", tolerance_change=1e-12)

    def closure():
        optimiser.zero_grad()
        loss = -mean_bound(vae, x).mean()
        loss.backward()
        return loss

    optimiser.step(closure)
    assert float(mean_bound(vae, x).detach().mean()) == pytest.approx(float(log_prob.mean()), abs=1e-4)


def test_the_divergence_is_that_of_the_library():
    rng = draws.generator(0, "kl")
    mean, log_variance = (torch.from_numpy(rng.standard_normal((7, 2, 3))) for _ in range(2))
    law, unit = torch.distributions.Normal(mean, (log_variance / 2).exp()), torch.distributions.Normal(0.0, 1.0)
    expected = torch.distributions.kl_divergence(law, unit).sum((1, 2))
    torch.testing.assert_close(divergence(mean, log_variance), expected)


def test_the_normal_likelihood_is_that_of_the_library():
    rng = draws.generator(0, "normal")
    x, mean = (torch.from_numpy(rng.standard_normal((7, 1, 2, 2))) for _ in range(2))
    expected = torch.distributions.Normal(mean, 0.3).log_prob(x).sum((1, 2, 3))
    torch.testing.assert_close(Normal(0.3).double()(x, mean), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("levels", [2, 17, 256])
@pytest.mark.parametrize("scale", [0.003, 0.1, 3.0])
def test_the_masses_of_the_discretised_logistic_add_up_to_one(levels, scale):
    values = torch.linspace(-1, 1, levels, dtype=torch.float64)[:, None]
    for mean in (-1.4, -0.2, 0.03, 1.0):
        masses = DiscretisedLogistic(scale, levels).double()(values, torch.full_like(values, mean)).exp().detach()
        assert float(masses.sum()) == pytest.approx(1, abs=1e-9)


def test_the_discretised_logistic_is_the_difference_of_two_logistic_functions():
    law, centre, mean = DiscretisedLogistic(0.2, 17).double(), torch.tensor([[0.25]]).double(), torch.tensor([[0.1]]).double()
    scale = law.log_scale.exp()
    expected = ((0.3125 - mean) / scale).sigmoid() - ((0.1875 - mean) / scale).sigmoid()
    torch.testing.assert_close(law(centre + 0.004, mean).exp(), expected[0])  # rounded to the nearest value
    assert bool(law(centre, mean + 1000).isfinite().all())


def test_log_variances_are_clamped():
    vae = METHODS.build("vae", channels=4).objective(FACTS, {}, 0).vae
    vae.encoder[-1].bias.data[vae.latent_shape[0] :] = 1e6
    _, log_variance = vae.encode(torch.zeros(2, 1, 8, 8))
    assert float(log_variance.max()) == 20.0


def test_the_weight_of_the_divergence_rises_from_zero():
    objective = METHODS.build("vae", channels=4, kl_weight=0.5, anneal_kimg=0.256).objective(FACTS, {}, 0)
    assert [objective.weight(kimg) for kimg in (0, 0.128, 0.256, 9)] == [0, 0.25, 0.5, 0.5]
    x, draw = torch.zeros(4, 1, 8, 8), BatchDraws(0, batch=128).part(slice(0, 4))
    noise = draw.normal("latent", objective.vae.latent_shape)
    for step, weight in ((0, 0.0), (1, 0.25), (5, 0.5)):
        expected = -objective.vae.evidence_bound(x, noise, weight)[0] / 64
        torch.testing.assert_close(objective.losses("vae", Batch(x, None, step, draw, objective)), expected)


def test_shapes_and_samples_depend_on_no_batch_size():
    vae = METHODS.build("vae", channels=4, latent=3, multipliers=[1, 2, 2]).objective(FACTS, {}, 0).vae
    assert vae.latent_shape == (3, 2, 2)
    model = VAEGenerator(vae)
    whole, spent = model.sample(range(5), "direct", 1)
    assert (whole.shape, whole.dtype, spent) == ((5, 1, 8, 8), torch.float64, 1)
    model.sampling = Sampling(batch=2)
    torch.testing.assert_close(model.sample(range(5), "direct", 1)[0], whole, rtol=0, atol=1e-6)
    assert model.reconstruct(whole).shape == whole.shape


def test_what_cannot_be_is_refused():
    with pytest.raises(ConfigurationError, match="takes images, but the data have shape"):
        METHODS.build("vae").objective(Facts(**(FACTS.as_dict() | {"shape": (2,)})), {}, 0)
    with pytest.raises(ConfigurationError, match="cannot be halved 4 times"):
        METHODS.build("vae", multipliers=[1] * 5).objective(FACTS, {}, 0)
    with pytest.raises(NotOffered, match="samplers: {direct: \\[1\\]}"):
        VAEGenerator(METHODS.build("vae", channels=4).objective(FACTS, {}, 0).vae).sample(range(1), "heun", 5)
    with pytest.raises(ConfigurationError, match="trained without classes"):
        VAEGenerator(METHODS.build("vae", channels=4).objective(FACTS, {}, 0).vae).sample(
            range(1), "direct", 1, torch.tensor([0])
        )
    assert isinstance(METHODS.build("vae", channels=4, likelihood="logistic").objective(FACTS, {}, 0), EvidenceObjective)
