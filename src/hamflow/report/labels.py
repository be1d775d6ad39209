"""How figures and tables call metrics, feature networks and settings, with units."""

from collections.abc import Collection

METRICS = {
    "fid": "FID",
    "clean_fid": "clean FID",
    "fd_enlite0": "Fréchet distance",
    "fd_enlite0_relative": "Fréchet distance / trace of the data's covariance",
    "kd_enlite0": "kernel distance (unbiased)",
    "w2": "Wasserstein-2 distance (data units)",
    "sliced_w2": "sliced Wasserstein-2 distance (data units)",
    "mmd": "squared MMD (unbiased)",
    "nll": "negative log-likelihood (nats)",
    "support": "fraction on the support",
}
SHORT = {
    "fid": "FID",
    "clean_fid": "clean FID",
    "fd_enlite0": "FD",
    "fd_enlite0_relative": "FD / trace",
    "kd_enlite0": "KD",
    "w2": "W2",
    "sliced_w2": "sliced W2",
    "mmd": "MMD",
    "nll": "NLL",
    "support": "support",
}
POINTS = "points"  # the features of point sets: the points themselves
FEATURES = {"inception": "Inception-v3", "efficientnet_lite0": "EfficientNet-Lite0", POINTS: "points"}
HEADLINES = (
    "fid",
    "clean_fid",
    "fd_enlite0",
    "w2",
    "sliced_w2",
)  # the first that a data set has speaks for it


def headline(metrics: Collection[str]) -> str:
    """The metric that speaks for a data set, of those it has."""
    return next((metric for metric in HEADLINES if metric in metrics), min(metrics))


def metric(name: str) -> str:
    """A metric in words, with its unit."""
    return METRICS.get(name, name)


def short(name: str) -> str:
    """A metric as a column's head."""
    return SHORT.get(name, name)


def features(name: str) -> str:
    """A feature network in words."""
    return FEATURES.get(name, name)


def words(key: str) -> str:
    """A key of the parameters as a title: gaussian_mixture -> Gaussian mixture."""
    return key.replace("_", " ").capitalize()


def setting(stem: str) -> str:
    """A file's stem in words: heun-nfe35 -> heun, 35 NFE."""
    sampler, _, nfe = stem.partition("-nfe")
    return f"{sampler}, adaptive" if nfe == "auto" else f"{sampler}, {nfe} NFE"
