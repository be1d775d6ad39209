"""Does the error of a solver on exact velocities, which no training has gone into, say which method is best?"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import kendalltau

from hamflow import draws, flows
from hamflow.files import write_text
from hamflow.flows import GaussianFlow
from hamflow.metrics import suite
from hamflow.metrics.paired import LEVEL
from hamflow.pipeline.records import Record
from hamflow.registry import convert
from hamflow.report import better, layout
from hamflow.report.tables import aggregate
from hamflow.sampling import steps_for, time_grid
from hamflow.sampling.proxy import Proxy, ProxySpec
from hamflow.sampling.solvers import SOLVERS

ABOUT = ("preset", "dataset", "method", "label", "sampler", "nfe", "metric", "seeds")
FEWEST = 4  # methods whose ranking is compared
RESAMPLES = 1000


def tabulate(records: Sequence[Record], spec: Mapping[str, Any], datasets: Mapping[str, Any], output: Path) -> pd.DataFrame:
    """Write proxy.csv, .md and .html; equal inputs give equal bytes.

    A line is a (data set, method, sampler, NFE) of a flow with normal noise, whose velocity is known, and a number of steps.

    Args:
        records: metrics. spec: `hamflow.config.proxy_spec`. datasets: the prepared data, by name.
    Returns: the lines, with the columns
        proxy, proxy_error: mean over the mixtures of the mean error of a sample, in units of the data's spread, and its
            standard error over the mixtures.
        value: the distance of the trained model's samples, mean over the training seeds.
        tau, low, high: Kendall's tau of proxy and value over the methods with this sampler and NFE, and its interval; empty
            where there are fewer than four.
    """
    measured = {name: _errors(spec["proxy"], spec["datasets"][name], data) for name, data in datasets.items()}
    frame = aggregate([record for record in records if record.sampled])
    headline = {name: suite.headline(set(group["metric"])) for name, group in frame.groupby("dataset")}
    lines = []
    for line in frame[frame["metric"] == frame["dataset"].map(headline)].to_dict("records"):
        if (errors := measured.get(line["dataset"], {}).get((line["method"], line["sampler"], line["nfe"]))) is not None:
            spread = float(errors.std(ddof=1) / len(errors) ** 0.5) if len(errors) > 1 else float("nan")
            about = {key: line[key] for key in ABOUT}
            lines.append({**about, "proxy": float(errors.mean()), "proxy_error": spread, "value": line["mean"]})
    found = pd.DataFrame(lines, columns=[*ABOUT, "proxy", "proxy_error", "value"])
    place = ["dataset", "sampler", "nfe"]
    taus = {key: _tau(records, group) for key, group in found.groupby(place, sort=False)}
    for name in ("tau", "low", "high"):
        found[name] = [taus[key][name] for key in found[place].itertuples(index=False, name=None)]
    titles = {record.dataset: record.dataset_label for record in records}
    grids = [_grid(group, titles[name]) for name, group in found.groupby("dataset", sort=False)]
    write_text(output / "proxy.csv", found.to_csv(index=False, lineterminator="\n"))
    write_text(output / "proxy.md", layout.markdown(grids))
    write_text(output / "proxy.html", layout.html(grids, "Exact velocities"))
    return found


def _errors(options: Mapping[str, Any], methods: Mapping[str, Any], data: Any) -> dict[tuple[str, str, float], np.ndarray]:
    """The mean error of a sample on each mixture, by method, sampler and NFE."""
    proxy = Proxy(data.batch(np.arange(data.count))[0], convert(ProxySpec, options, "evaluation.proxy"))
    found = {}
    for method, spec in methods.items():
        flow, how = flows.resolve(spec["flow"], data.sigma_data, data.box), spec["sampling"]
        if not isinstance(flow, GaussianFlow):
            continue
        fields = list(proxy.fields(flow))
        for sampler, nfe in how["settings"]:
            if sampler in SOLVERS and isinstance(nfe, int):
                grid = [how[key] for key in ("grid", "rho", "sigma_min", "sigma_max")]
                times = time_grid(flow, steps_for(sampler, nfe), *grid)
                errors = [float(field.errors(sampler, times).mean()) for field in fields]
                found[method, sampler, float(nfe)] = np.array(errors)
    return found


def _tau(records: Sequence[Record], lines: pd.DataFrame) -> dict[str, float]:
    """Kendall's tau over the methods, and its interval: of methods drawn with replacement, and resampled distances."""
    if len(lines) < FEWEST:
        return dict.fromkeys(("tau", "low", "high"), float("nan"))
    proxy, value = lines["proxy"].to_numpy(), lines["value"].to_numpy()
    drawn = [better.resampled(records, line) for line in lines.itertuples()]
    rng = draws.generator(0, "bootstrap", "proxy", len(lines))
    taus = []
    for _ in range(RESAMPLES):
        picked = rng.integers(len(lines), size=len(lines))
        at = int(rng.integers(len(drawn[0][0].draws))) if all(drawn) else None
        again = value if at is None else np.array([np.mean([one.draws[at] for one in seeds]) for seeds in drawn])
        taus.append(kendalltau(proxy[picked], again[picked]).statistic)
    low, high = np.nanquantile(taus, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return {"tau": float(kendalltau(proxy, value).statistic), "low": float(low), "high": float(high)}


def _grid(lines: pd.DataFrame, title: str) -> layout.Grid:
    """One data set: a line for each method, two columns for each sampler and NFE; the last line is Kendall's tau."""
    places = list(dict.fromkeys(lines[["sampler", "nfe"]].itertuples(index=False, name=None)))
    rows = []
    for label, group in lines.groupby("label", sort=False):
        cells = {(line.sampler, line.nfe): line for line in group.itertuples()}
        pairs = [
            (f"{cells[at].proxy:.3f}", layout.number(cells[at].value)) if at in cells else (layout.NONE,) * 2 for at in places
        ]
        rows.append([label, *(cell for pair in pairs for cell in pair)])
    taus = [lines[(lines["sampler"] == sampler) & (lines["nfe"] == nfe)].iloc[0] for sampler, nfe in places]
    last = [(f"{one.tau:.2f}", f"{one.low:.2f}, {one.high:.2f}") if one.tau == one.tau else (layout.NONE,) * 2 for one in taus]
    rows.append(["Kendall's tau, interval", *(cell for pair in last for cell in pair)])
    metric = suite.about(lines["metric"].iloc[0])
    heads = [(f"{sampler} {nfe:g}", name) for sampler, nfe in places for name in ("exact", metric.short)]
    columns = pd.MultiIndex.from_tuples([("", "method"), *heads])
    caption = (
        f"{title}, preset {lines['preset'].iloc[0]}: mean error of a sample on the exact velocity of fitted mixtures, in units "
        f"of the data's spread, and {metric.title} of the trained models, training seeds: {lines['seeds'].iloc[0]}."
    )
    return layout.Grid(f"proxy-{lines['dataset'].iloc[0]}", caption, pd.DataFrame(rows, columns=columns), True)
