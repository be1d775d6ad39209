"""Functions of images on a torus, whose opposite edges are joined: the same wherever the image is shifted to.

The shifts by whole pixels are a finite group. It has no generator and so no Poisson bracket: a constraint is hard, by
construction, or there is none [theory 9.9].
"""

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional

from hamflow import draws
from hamflow.equivariant.encoders import Encoder
from hamflow.equivariant.energies import Energy, log_normal

Shape = tuple[int, ...]  # (C, H, W)
KERNEL = 3
FEATURES, SHIFTS = 32, 8  # of the test of data


class TorusEnergy(Energy):
    """The sum over the pixels of a convolutional network with softplus activations, its edges joined.

    Args:
        shape: (C, H, W); x is [N, C H W]. width, depth: of the hidden layers. gain, quadratic: as of `NetworkEnergy`.
    """

    def __init__(self, shape: Shape, width: int = 64, depth: int = 2, gain: float = 3.0, quadratic: bool = False):
        super().__init__()
        self.shape, self.quadratic = shape, float(quadratic)
        sizes = [shape[0], *depth * [width]]
        self.layers = nn.ModuleList(nn.Conv2d(a, b, KERNEL) for a, b in itertools.pairwise(sizes))
        self.last = nn.Linear(width, 1, bias=False)
        with torch.no_grad():
            for layer in (self.last, *self.layers):
                layer.weight.mul_(gain)  # type: ignore[operator,union-attr]  # a list of convolutions

    def forward(self, x: Tensor) -> Tensor:
        h = x.view(-1, *self.shape)
        for layer in self.layers:
            h = functional.softplus(layer(joined(h)))
        return self.last(h.sum((2, 3)))[:, 0] + self.quadratic / 2 * x.square().sum(1)

    def gradient(self, x: Tensor) -> Tensor:
        """The chain rule backwards through the layers; the adjoint of a convolution is one with the turned kernel."""
        h, slopes = x.view(-1, *self.shape), []
        for layer in self.layers:
            before = layer(joined(h))
            slopes.append(torch.sigmoid(before))
            h = functional.softplus(before)
        back = self.last.weight[0][:, None, None]
        for layer, slope in zip(reversed(self.layers), reversed(slopes), strict=True):
            turned = layer.weight.flip(2, 3).transpose(0, 1)  # type: ignore[operator,union-attr]
            back = functional.conv2d(joined(back * slope), turned)
        return back.flatten(1) + self.quadratic * x


class TorusEncoder(Encoder):
    """p = m(q) + s(q) e with convolutional m and ln s: it shifts with q.

    Args:
        shape: (C, H, W). width, depth: of the network.
    """

    def __init__(self, shape: Shape, width: int = 64, depth: int = 2):
        super().__init__()
        self.shape = shape
        sizes = [shape[0], *depth * [width]]
        layers: list[nn.Module] = []
        for a, b in itertools.pairwise(sizes):
            layers += [nn.Conv2d(a, b, KERNEL, padding=KERNEL // 2, padding_mode="circular"), nn.SiLU()]
        last = nn.Conv2d(width, 2 * shape[0], 1)
        with torch.no_grad():
            last.weight.mul_(0.1)
            last.bias.zero_()  # type: ignore[union-attr]
        self.network = nn.Sequential(*layers, last)

    def forward(self, q: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        mean, logs = (part.flatten(1) for part in self.network(q.view(-1, *self.shape)).chunk(2, 1))
        return mean + logs.exp() * noise, log_normal(noise.square().sum(1), logs.sum(1), q.shape[1])


def joined(x: Tensor) -> Tensor:
    """[N, C, H, W] with a margin of the opposite edges, as wide as half a kernel."""
    return functional.pad(x, 4 * (KERNEL // 2,), mode="circular")


def shifted(x: Tensor, shape: Shape, down: int, right: int) -> Tensor:
    """Images [N, C H W] on the torus, moved by whole pixels."""
    return torch.roll(x.view(-1, *shape), (down, right), (2, 3)).flatten(1)


def shift_asymmetry(x: Tensor, shape: Shape, seed: int = 0) -> float:
    """How surely data lack the symmetry: the largest of some standard scores, about 2 to 3 for data that have it.

    E phi(T x) = E phi(x) for every phi, if the law of x is that of T x. Here phi = cos(w . x + c) with random w and c, and T
    are random shifts.

    Args:
        x: data, [N, C H W], about unit spread.
    """
    rng = draws.generator(seed, "torus", "features")
    x = x.detach().double().cpu()
    waves = torch.from_numpy(rng.standard_normal((x.shape[1], FEATURES))) / x.shape[1] ** 0.5
    phases = torch.from_numpy(rng.uniform(0, 2 * torch.pi, FEATURES))
    scores = []
    for _ in range(SHIFTS):
        down, right = (int(rng.integers(side)) for side in shape[1:])
        change = torch.cos(shifted(x, shape, down, right) @ waves + phases) - torch.cos(x @ waves + phases)
        scores.append(float((change.mean(0) / (change.std(0) / len(x) ** 0.5 + 1e-12)).abs().max()))
    return max(scores)
