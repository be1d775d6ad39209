# Run by Snakemake in the working directory (the repository), inside the conda environment that it has just made.
set -euo pipefail
python -m pip install -r requirements.lock
python -m pip install --no-deps -e .
