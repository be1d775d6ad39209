"""Mean against standard deviation of the per-sample parameter gradient: Hamiltonian against denoising score matching."""

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from msgspec import field
from torch import Tensor, nn

from hamflow import draws, networks
from hamflow.methods.score_matching import ScoreMatching
from hamflow.registry import Count, Positive, convert, some
from hamflow.report import style
from hamflow.score import objectives
from hamflow.score.discrepancy import trajectories
from hamflow.score.estimators.critic import CriticTraining, fit_critic
from hamflow.score.fields import VelocityPredictor
from hamflow.studies import base

PAIRS = 512  # samples whose gradients are multiplied with each other


class Spec(base.Common, kw_only=True, frozen=True):
    """Besides the common keys: training_sigma, training: how the score at which gradients are taken was trained;
    sigmas: of denoising; time: t of Hamiltonian score matching; integration_steps; samples: gradients;
    critic, critic_samples, critic_training: of the near-optimal velocity predictor."""

    network: base.Network = field(default_factory=lambda: {"kind": "small", "width": 32, "depth": 2})
    training_sigma: Positive = 0.3
    training: Annotated[dict[str, Any], some(base.ScoreTraining)] = field(
        default_factory=lambda: {"train_kimg": 25.6, "learning_rate": 3e-3}
    )
    sigmas: tuple[Positive, ...] = (0.01, 0.05, 0.1, 0.3, 0.5)
    time: Positive = 0.2
    integration_steps: Count = 3
    samples: Count = 8192
    critic: base.Network = field(default_factory=lambda: {"kind": "small", "width": 128, "depth": 3})
    critic_samples: Count = 40_000
    critic_training: Annotated[dict[str, Any], some(CriticTraining)] = field(default_factory=lambda: {"train_kimg": 512})


def run(values: dict[str, Any]) -> dict[str, Any]:
    """Per-sample gradients of the same network at the same weights, in the scale of L_esm (HSM divided by 2 t^2)."""
    spec = convert(Spec, values, "studies.gradients")
    law, plan = spec.law(), convert(base.ScoreTraining, spec.training, "training")
    score = base.train_score(spec, ScoreMatching(sigma=spec.training_sigma), plan, spec.seed).module
    critic = near_optimal_critic(spec, score)
    x = base.samples_of_discrepancy(law, spec.samples, spec.seed).float()
    noise = draws.normal_like(draws.generator(spec.seed, "gradients", "noise"), x)
    t = torch.tensor(spec.time)

    def hamiltonian(s: Any, x: Tensor, v: Tensor) -> Tensor:
        value = objectives.hamiltonian(s, critic, x, v, t.expand(1), integration_steps=spec.integration_steps)
        return value / (2 * spec.time**2)

    series = {"hsm": _moments(score, hamiltonian, x, noise)}
    for sigma in spec.sigmas:
        loss = lambda s, x, n, sigma=sigma: objectives.denoising(s, x, n, sigma)  # noqa: E731
        series[f"dsm@sigma={sigma:g}"] = _moments(score, loss, x, noise)
    error, _ = base.score_error(law, score, spec.evaluation, spec.seed)
    return {"kind": "gradients", "spec": spec.as_dict(), "score_error": error, "series": series, "n": spec.samples}


def near_optimal_critic(spec: Spec, score: nn.Module) -> nn.Module:
    """V = E[v_t | x_t] at the one time, trained on trajectories of the frozen score and then held fixed."""
    law, rng = spec.law(), draws.generator(spec.seed, "gradients", "critic")
    x = law.sample(spec.critic_samples, rng).float()
    v = draws.normal_like(rng, x)
    times = np.array([spec.time])
    pushed = trajectories(score, torch.cat([x, x]), torch.cat([v, -v]), times, spec.integration_steps)
    network = networks.build(spec.critic, (law.dimension,), 0, spec.seed, "critic of gradients")
    critic = VelocityPredictor(network, "scaled", spec.time, base.spread_of(law))
    units = np.arange(spec.critic_samples)
    plan = convert(CriticTraining, spec.critic_training, "critic_training")
    return fit_critic(critic, *pushed, times, units, score, plan, spec.seed).requires_grad_(False)


def _moments(score: nn.Module, loss: Any, x: Tensor, noise: Tensor, chunk: int = 1024) -> dict[str, Any]:
    """Over the samples, |mean| and standard deviation of d loss_i / d theta_j for every parameter j; signal to noise
    of the whole gradient, and the least that so many samples tell from zero."""
    weights = {name: value.detach() for name, value in score.named_parameters()}

    def one(weights: dict[str, Tensor], x: Tensor, n: Tensor) -> Tensor:
        s = lambda y, t=0.0: torch.func.functional_call(score, weights, (y, t))  # noqa: E731
        return loss(s, x[None], n[None])[0]

    each = torch.func.vmap(torch.func.grad(one), in_dims=(None, 0, 0))
    parts = []
    for i in range(0, len(x), chunk):
        gradients = each(weights, x[i : i + chunk], noise[i : i + chunk])
        parts.append(torch.cat([g.flatten(1) for g in gradients.values()], dim=1))
    gradients = torch.cat(parts)
    mean, std = gradients.double().mean(0).abs(), gradients.double().std(0)
    # Leave out weights whose gradient is always zero: the time input of the score network is constantly 0.
    moving = std > 0
    # |mean|^2 without its sampling bias against tr C = E|g - mean|^2. Where the true mean is zero, the estimate of |mean|^2
    # has variance 2 tr(C^2) / n^2, and tr(C^2) = E (g_i . g_j)^2 over pairs of centred gradients.
    signal, trace = float((mean.square() - std.square() / len(x)).sum().clamp(min=0)), float(std.square().sum())
    centred = gradients[:PAIRS].double() - gradients.double().mean(0)
    products = (centred @ centred.T).square()
    squares = float(products.sum() - products.diagonal().sum()) / (len(centred) * (len(centred) - 1))
    return {
        "mean": base.rounded(mean[moving]),
        "std": base.rounded(std[moving]),
        "snr": float(np.sqrt(signal / trace)),
        "resolved_snr": float(np.sqrt(2 * np.sqrt(2 * squares) / len(x) / trace)),  # two standard errors of its square
    }


def draw(result: dict[str, Any], output: Path) -> None:
    """Panel (c): a dot a parameter of the score network."""
    from matplotlib import colormaps

    denoising = {name: s for name, s in result["series"].items() if name.startswith("dsm")}
    shades = colormaps["viridis"](np.linspace(0.1, 0.85, max(len(denoising), 1)))
    with style.drawing(output, 6.6, 3.7) as figure:
        axes = figure.subplots()
        for (name, series), shade in zip(denoising.items(), shades, strict=True):
            label = f"DSM, $\\sigma$ = {name.partition('=')[2]} ({_snr(series)})"
            axes.scatter(series["mean"], series["std"], s=5, color=shade, alpha=0.5, linewidths=0, label=label, rasterized=True)
        series = result["series"]["hsm"]
        label = f"HSM ({_snr(series)})"
        axes.scatter(series["mean"], series["std"], s=8, color=style.HAMILTONIAN, linewidths=0, label=label, rasterized=True)
        stds = np.array([bound(s["std"]) for s in result["series"].values() for bound in (min, max)])
        ends = np.array([stds.min(), stds.max()])
        label = r"std $/ \sqrt{n}$: left of it the mean is noise"
        axes.plot(ends / result["n"] ** 0.5, ends, color=style.INK, linewidth=0.9, linestyle="--", label=label)
        axes.set(
            xscale="log", yscale="log", xlabel=r"$|$mean$|$ of $\partial L / \partial \theta_j$", ylabel="standard deviation"
        )
        axes.set_xlim(left=ends[0] / result["n"] ** 0.5 / 10)
        axes.set_title(f"per-sample gradients of one network, n = {result['n']}")
        legend = axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), markerscale=2.5)
        for handle in legend.legend_handles:
            handle.set_alpha(1)


def _snr(series: dict[str, Any]) -> str:
    """Signal to noise of the whole gradient, where the samples resolve it."""
    least = series["resolved_snr"]
    return f"SNR {series['snr']:.3f}" if series["snr"] > least else f"SNR < {least:.3f}"
