"""One step of each method's training against a plain derivation from the published formulas: loss, gradient, Adam, average.

The derivation knows nothing of flows and parameterisations. It takes the same random numbers, by their names.
"""

import math

import pytest
import torch
from scipy.special import roots_genlaguerre

from hamflow import config
from hamflow.config import options_of
from hamflow.draws import BatchDraws, DataOrder
from hamflow.methods.base import METHODS, Facts
from hamflow.training.fit import Samples, fit
from hamflow.training.plan import Training
from hamflow.training.state import State

SD, N = 0.7, 8
NETWORK = {"kind": "unet", "channels": 4, "multipliers": [1], "blocks": 1, "attention": []}
OF_ITS_OWN = {"ve_sde": {**NETWORK, "kind": "ncsnpp"}, "vp_sde": {**NETWORK, "kind": "ddpmpp"}}
PLAN = Training(train_kimg=2 * N / 1000, batch=N, learning_rate=1e-3, decay="none", ema_halflife_kimg=0.004, gradient_clip=0.1)
METHODS_OF_THE_PARAMETERS = config.load(["params.yaml"])["methods"]


def facts_of(name):
    network = OF_ITS_OWN.get(name, NETWORK)
    return Facts(name="noise", shape=(1, 4, 4), classes=0, sigma_data=SD, box=(-1.0, 1.0), network=network)


def column(value):
    return value[:, None, None, None]


def normal_quantile(u):
    return math.sqrt(2) * torch.erfinv(2 * u - 1)


def edm(net, x0, n, u, width=lambda y, s: 1):
    """Karras et al. 2022: (sigma^2 + sd^2)/(sigma sd)^2 |D - x_0|^2."""
    s = torch.exp(-1.2 + 1.2 * normal_quantile(u)).clamp(max=20).float()
    y = x0 + column(s) * n
    s = s * width(y, s)
    c = column(s**2 + SD**2)
    denoised = SD**2 / c * y + column(s) * SD / c.sqrt() * net(y / c.sqrt(), s.log() / 4)
    return c / (column(s) * SD) ** 2 * (denoised - x0) ** 2


def ve_sde(net, x0, n, u):
    s = (math.log(0.02) + u * math.log(10 / 0.02)).exp().float()
    y = x0 + column(s) * n
    return (y + column(s) * net(y, (s / 2).log()) - x0) ** 2 / column(s) ** 2


def vp_sde(net, x0, n, u):
    """In the variables of the SDE: x_s = sqrt(alpha) x_0 + sqrt(1 - alpha) n, the network predicts n."""
    s = 1e-5 + (1 - 1e-5) * u
    sigma = ((9.95 * s**2 + 0.1 * s).exp() - 1).sqrt().float().double()  # in float32 as every time of a training
    alpha = 1 / (1 + sigma**2)
    s = ((0.01 - 39.8 * alpha.log()).sqrt() - 0.1) / 19.9
    x = (column(alpha).sqrt() * x0 + (1 - column(alpha)).sqrt() * n).float()
    return (net(x, (999 * s).float()) - n) ** 2


def flow_matching(net, x0, n, u):
    """Lipman et al. 2022: x = (1 - t) x_0 + t n, the network, which sees unit spread, predicts n - x_0."""
    s = torch.exp(-1.2 + 1.2 * normal_quantile(u))
    t = column(s / (1 + s)).float()
    return (
        net(((1 - t) * x0 + t * n) / ((1 - t) ** 2 * SD**2 + t**2).sqrt(), s.clamp(0.002, 80).log().float() / 4) - (n - x0)
    ) ** 2


def oscillation(net, x0, n, u, alpha=1 / SD, uniform=False, loss=torch.square):
    """Positions and velocities of a spring of stiffness alpha^2; the network sees unit spread."""
    s = torch.exp(-1.2 + 1.2 * normal_quantile(u))
    angle = math.pi / 2 * u if uniform else torch.arctan(alpha * s)
    s = torch.tan(angle) / alpha
    cos, sin = column(angle.cos()).float(), column(angle.sin()).float()
    x, v = cos * x0 + sin / alpha * n, cos * n - alpha * sin * x0
    return loss(net(x / ((cos * SD) ** 2 + (sin / alpha) ** 2).sqrt(), s.clamp(0.002, 80).log().float() / 4) - v)


def reflection(net, x0, n, u, wall=1.0, times=lambda u, end: end * 10 ** (2 * (u - 1))):
    """Free flight, mirrored at the walls of [-wall, wall] until it is inside; the network sees unit spread."""
    t = times(u, 3 * wall)
    x, v = x0 + column(t).float() * n, n.clone()
    while bool((x.abs() > wall).any()):
        out = x.abs() > wall
        x, v = torch.where(out, x.sign() * 2 * wall - x, x), torch.where(out, -v, v)
    return (net(x / (2 * wall / math.sqrt(12)), t.clamp(0.002, 80).log().float() / 4) - v) ** 2


def student_width(y, s, degrees=32):
    """w^2 = E[1/h | y] / E[g/h | y], h = sd^2 g + s^2, g ~ chi^2_D / D: the width of normal noise with one denoiser (4.7)."""
    points, weights = roots_genlaguerre(80, degrees / 2 - 1)
    g, s = torch.from_numpy(2 * points / degrees), s.double()[:, None]
    h = SD**2 * g + s**2  # y is N(0, h / g) given g, of normal data
    square = y.double().square().flatten(1).sum(1, keepdim=True)
    posterior = torch.from_numpy(weights) * (g / h) ** (y[0].numel() / 2) * torch.exp(-square * g / h / 2)
    return ((posterior / h).sum(1) / (posterior * g / h).sum(1)).sqrt().float()


def colour_of(x, power):
    """K = S^power d / tr S^power of the data's covariance S with its ridge, float64 [d, d]."""
    x = x.flatten(1).double() - x.flatten(1).double().mean(0)
    values, vectors = torch.linalg.eigh(x.T @ x / len(x))
    values = (values + 0.01 * values.mean()) ** power
    return vectors @ torch.diag(values / values.mean()) @ vectors.T


def coloured(net, x0, n, u):
    """The spring with velocities K^(1/2) n of the data's colour K; the loss r' M r of the residual, M = S^-.15 at unit mean."""
    values, vectors = torch.linalg.eigh(colour_of(x0, 0.3))
    noise = (n.flatten(1).double() @ vectors * values.sqrt()) @ vectors.T
    metric = colour_of(x0, -0.15)
    return oscillation(net, x0, noise.view_as(n).float(), u, loss=lambda r: r.flatten(1) * (r.flatten(1).double() @ metric))


PLAIN = {
    "edm": edm,
    "ve_sde": ve_sde,
    "vp_sde": vp_sde,
    "flow_matching": flow_matching,
    "oscillation": oscillation,
    "oscillation_uniform": lambda *a: oscillation(*a, uniform=True),
    "oscillation_learned_times": oscillation,  # which in the first step are as the law says
    "oscillation_unit": lambda *a: oscillation(*a, alpha=1.0),
    "oscillation_unit_uniform": lambda *a: oscillation(*a, alpha=1.0, uniform=True),
    "reflection": reflection,
    "reflection_wide": lambda *a: reflection(*a, wall=2.0, times=lambda u, end: 0.02 * (end / 0.02) ** u),
    "pfgm": lambda *a: edm(*a, width=student_width),
    "oscillation_coloured": coloured,
}


def noise_of(name, draws):
    """Unit normal; of PFGM++ divided by the root of chi^2_D / D."""
    normal = draws.normal("noise", (1, 4, 4))
    return normal / column((draws.chi_square("radius", 32) / 32).sqrt()).float() if name == "pfgm" else normal


def test_every_method_in_the_parameters_is_derived_here():
    kinds = {name for name, entry in METHODS_OF_THE_PARAMETERS.items() if entry["kind"] == "velocity"}
    assert kinds == PLAIN.keys()


@pytest.mark.parametrize("name", PLAIN)
def test_one_step_is_the_published_one(name):
    objective = METHODS.build("velocity", **options_of(METHODS_OF_THE_PARAMETERS[name])).objective(facts_of(name), {}, 0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():  # away from the start, where most gradients are zero
        for weight in objective.parameters():
            weight.add_(0.1 * torch.randn(weight.shape, generator=generator))
    x0 = (SD * torch.randn(N, 1, 4, 4, generator=generator)).clamp(-1, 1)
    state = State(objective, PLAN)
    net, before = objective.field.network, [weight.detach().clone() for weight in objective.parameters()]

    draws = BatchDraws(3, "training", "velocity", 0, 0, batch=N)
    order = torch.from_numpy(DataOrder(3, "velocity", count=N).rows(0, N))
    loss = PLAIN[name](net, x0[order], noise_of(name, draws), draws.uniform("time")).mean()
    gradients = torch.autograd.grad(loss, list(objective.parameters()))
    next(fit(objective, Samples(x0), PLAN, 3, state))

    assert float(state.window["loss"][0]) == pytest.approx(loss.item(), rel=1e-6)
    norm = math.sqrt(sum(float(g.double().square().sum()) for g in gradients))
    clip = min(1.0, 0.1 / norm)
    moments = state.optimisers["field"].state
    for weight, old, averaged, plain in zip(
        objective.parameters(), before, state.averaged.parameters(), gradients, strict=True
    ):
        first, second = moments[weight]["exp_avg"], moments[weight]["exp_avg_sq"]
        found = first / 0.1  # (1 - beta_1) g
        torch.testing.assert_close(found, clip * plain, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(second, 0.01 * found**2, rtol=1e-5, atol=0)
        moved = old - 1e-3 * found / (found.abs() + 1e-8)  # the moments without their bias are g and g^2
        torch.testing.assert_close(weight.detach(), moved, rtol=0, atol=1e-6)
        keep = 0.5 ** (N / min(4, 0.1 * N))  # half of the average is left after 4 images, or a tenth of those seen
        torch.testing.assert_close(averaged, keep * old + (1 - keep) * weight.detach(), rtol=0, atol=1e-6)
