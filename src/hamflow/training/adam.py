"""torch's Adam, which here does not import torch's compiler."""

import inspect
from collections.abc import Sequence

import torch
from torch import Tensor


class Adam(torch.optim.Adam):
    """`torch.optim.Adam`, to the bit (Kingma and Ba, arXiv:1412.6980).

    torch wraps these methods to keep its compiler out of them, and imports the compiler for that: 1.4 s in every
    training, where nothing is compiled. Here they are unwrapped; should torch wrap them no more, this changes nothing.
    """

    add_param_group = inspect.unwrap(torch.optim.Adam.add_param_group)
    state_dict = inspect.unwrap(torch.optim.Adam.state_dict)
    load_state_dict = inspect.unwrap(torch.optim.Adam.load_state_dict)
    zero_grad = inspect.unwrap(torch.optim.Adam.zero_grad)
    step = torch.no_grad()(inspect.unwrap(torch.optim.Adam.step))


def way_of(weights: Sequence[Tensor], fused: bool | None = None) -> dict[str, bool]:
    """How Adam goes through its weights: all of them an operation, which gives the same bits as one after the other, or fused.

    Args:
        fused: one kernel for everything, which rounds otherwise; None: where the weights are on CUDA.
    """
    if fused is None:
        fused = all(weight.device.type == "cuda" for weight in weights)
    return {"fused": True} if fused else {"foreach": True}
