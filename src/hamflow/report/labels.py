"""How figures call data sets and settings."""


def words(key: str) -> str:
    """A key of the parameters as a title: gaussian_mixture -> Gaussian mixture."""
    return key.replace("_", " ").capitalize()


def setting(stem: str) -> str:
    """A file's stem in words: heun-nfe35 -> heun, 35 NFE."""
    sampler, _, nfe = stem.partition("-nfe")
    return f"{sampler}, adaptive" if nfe == "auto" else f"{sampler}, {nfe} NFE"
