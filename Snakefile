# From data to Table 1. `snakemake --cores all` runs params.yaml; add `--configfile workflow/presets/NAME.yaml` for another preset.
from pathlib import Path

from snakemake.utils import min_version

min_version("9.27")

# Of the working directory, or else this folder's: with `--directory`, or with `--snakefile` from elsewhere.
PARAMETERS = next(
    (path for path in [Path("params.yaml")] if path.exists()), Path(workflow.basedir, "params.yaml")
)


configfile: str(PARAMETERS)


include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/sample.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/report.smk"


report: "workflow/report/workflow.rst"


rule all:
    default_target: True
    input:
        targets.tables(config),
        [PRESET.figure(name) for name in figures.names(config)],
