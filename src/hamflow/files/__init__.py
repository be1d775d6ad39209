"""Files that are complete or absent, locks, and the reading of files that anyone may have written."""

from hamflow.files.atomic import (
    atomic,
    canonical_json,
    exclusive,
    fingerprint,
    load_metadata,
    load_tensors,
    read_json,
    save_array,
    save_tensors,
    sha256_of,
    write_json,
    write_text,
)

__all__ = [
    "atomic",
    "canonical_json",
    "exclusive",
    "fingerprint",
    "load_metadata",
    "load_tensors",
    "read_json",
    "save_array",
    "save_tensors",
    "sha256_of",
    "write_json",
    "write_text",
]
