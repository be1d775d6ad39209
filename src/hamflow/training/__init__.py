"""One training loop for every method: durations in images, exact resuming, atomic publishing."""


def __getattr__(name: str):
    if name == "train":  # the settings of `plan` are read without torch
        from hamflow.training.loop import train

        return train
    raise AttributeError(f"module 'hamflow.training' has no attribute {name!r}")
