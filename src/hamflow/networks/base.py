"""Where networks are found by name.

A network is a class with `sample_dims`, the number of dimensions of one sample, built by (shape, classes, **options) and
called by forward(x, noise_label, class_label=None) -> shaped like x.
"""

from hamflow.registry import Registry

NETWORKS: Registry = Registry("network", "hamflow.networks", given=("shape", "classes"))
