"""clean-fid as the oracle of distances."""

import pytest
import torch


@pytest.fixture(scope="session")
def cleanfid():
    """clean-fid's own route imports torchvision, which beside a CPU build of torch lacks its operators: declare two."""
    library = torch.library.Library("torchvision", "FRAGMENT")
    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import cleanfid.fid

    yield cleanfid.fid
    del library  # the schemas last as long as it does
