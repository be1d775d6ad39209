"""Progress of a long job: a bar on a terminal, plain lines elsewhere."""

import sys
from typing import Any


class Progress:
    """Counts up to `total`.

    Args:
        label: what is being done.
        total: units of work.
        unit: of the work, as the bar shows it.
        done: units done before (a resumed job).
        shown: whether anything is.
    """

    def __init__(self, label: str, total: float, unit: str, done: float = 0, shown: bool = True):
        self.label, self.shown = label, shown
        self.bar = _terminal_bar(label, total, unit, done) if shown else None

    def advance(self, amount: float) -> None:
        """Another `amount` units are done."""
        if self.bar is not None:
            self.bar.update(amount)

    def report(self, **values: Any) -> None:
        """Show values: behind the bar, or as a line of their own."""
        text = "  ".join(f"{name} {value}" for name, value in values.items())
        if self.bar is not None:
            self.bar.set_postfix_str(text)
        elif self.shown:
            print(f"{self.label}: {text}", flush=True)

    def close(self) -> None:
        """End the bar."""
        if self.bar is not None:
            self.bar.close()


def _terminal_bar(label: str, total: float, unit: str, done: float):
    if not sys.stderr.isatty():
        return None
    try:
        from tqdm import tqdm
    except ImportError:  # a compute node with the bare core
        return None
    return tqdm(total=total, initial=done, unit=unit, desc=label, unit_scale=True, dynamic_ncols=True)
