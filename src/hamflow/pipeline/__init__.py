"""The house of the pipeline: provenance, traces, verification."""
