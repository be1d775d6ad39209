"""One training loop for every method: durations in images, exact resuming."""
