"""The log survives a kill at any byte."""

import pytest

from hamflow.tracking import JsonlLog, read_jsonl

RECORDS = [{"kimg": 0.1 * k, "loss": 1 / k, "note": "é\n"} for k in range(1, 4)]


@pytest.fixture
def path(tmp_path):
    with JsonlLog(tmp_path / "folder" / "train.jsonl") as log:
        for record in RECORDS:
            log.append(record)
    return log.path


def test_what_is_appended_is_read_back(path):
    assert read_jsonl(path) == RECORDS


def test_a_record_is_readable_before_the_log_is_closed(tmp_path):
    log = JsonlLog(tmp_path / "train.jsonl")
    log.append(RECORDS[0])
    assert read_jsonl(log.path) == RECORDS[:1]
    log.close()


def test_torn_at_every_byte_the_log_loses_only_the_torn_line_and_goes_on(path):
    whole = path.read_bytes()
    for end in range(len(whole) + 1):
        path.write_bytes(whole[:end])
        lines = whole[:end].split(b"\n")
        complete = len(lines) - 1 + (lines[-1].endswith(b"}"))  # a line that lacks only its newline is whole
        assert read_jsonl(path) == RECORDS[:complete]
        with JsonlLog(path) as log:
            log.append({"kimg": 9.0})
        assert read_jsonl(path) == [*RECORDS[:complete], {"kimg": 9.0}]


def test_a_corrupted_line_in_the_middle_is_an_error_that_names_it(path):
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join([lines[0], b'{"kimg":', *lines[2:]]))
    with pytest.raises(ValueError, match="line 2"):
        read_jsonl(path)


def test_truncating_then_appending_equals_never_having_gone_on(path, tmp_path):
    straight = path.read_bytes()
    with JsonlLog(path) as log:
        log.restart(RECORDS[:1])
        for record in RECORDS[1:]:
            log.append(record)
    assert path.read_bytes() == straight


def test_what_json_cannot_hold_is_refused_and_leaves_no_trace(path):
    before = path.read_bytes()
    with JsonlLog(path) as log, pytest.raises(ValueError, match="JSON"):
        log.append({"loss": float("nan")})
    assert path.read_bytes() == before
