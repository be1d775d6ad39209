"""Reading tables and metrics again, without the code that wrote them."""

import json


def values_of(metrics, line) -> list[float]:
    """The values behind a line, read from the JSON files alone."""
    files = (metrics / line.dataset / line.method).glob(f"seed*/{line.sampler}-nfe{line.nfe:g}.json")
    return [json.loads(file.read_text())["metrics"][line.metric]["value"] for file in files]


def cells_of(text) -> list[list[str]]:
    """The cells of the first table of a Markdown text."""
    lines = [line for line in text.split("\n\n")[1].splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
