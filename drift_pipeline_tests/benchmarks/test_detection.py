"""The benchmark runs and prints its tables; what it measures is not asserted."""

import re

import pytest

from drift_pipeline_tests.benchmarks.detection import main


def test_the_tables_name_each_measurement_with_its_ratios_and_the_window(capsys: pytest.CaptureFixture[str]) -> None:
    main(
        [
            "--rows",
            "3000",
            "--files",
            "3",
            "--warm-rows",
            "2000",
            "--repeats",
            "1",
            "--only",
            "ours, reference c",
            "bare",
        ]
    )
    text = capsys.readouterr().out
    assert "| 3,000 rows a side | median s |" in text
    for name in ("ours, reference cached", "bare Polars read"):
        assert re.search(rf"\| {name} \| \d+\.\d+ \| 1 \| \d+ \| nan \| \d+\.\d+ \|", text), text
    assert re.search(r"\| 3,000 \| 3 \| \d\.\d+ \| 1\.00 \| [\d,]+ \|", text), text
