"""From two tables to a picture: lines of code, seconds, what is said and how large the page is, of three tools.

`python -m drift_pipeline_tests.benchmarks.first_picture [ELEC2.csv.gz] [--nannyml PYTHON]`. Two public tables:
scikit-learn's breast cancer data in two random halves, where nothing differs, and Elec2, its first 10,000 rows against
its last, where the market is another one. Each tool runs in a process of its own, by what its own guide shows first;
seconds count its imports. NannyML asks for older libraries, so it runs by the Python of an environment that has it
(`pip install nannyml==0.13.1`).
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import polars as pl

OURS = """
import drift_pipeline as dp
found = dp.compare(ref, cur)
found.save(out)
"""
OURS_SAYS = """
frame = found.to_frame()
counts = {word: int((frame["verdict"] == word).sum()) for word in ("BREACH", "WARN")}
told = f"{found.verdict}; of {frame.height} columns {counts['BREACH']} BREACH, {counts['WARN']} WARN"
"""
EVIDENTLY = """
from evidently import Report
from evidently.presets import DataDriftPreset
run = Report([DataDriftPreset()]).run(cur, ref)
run.save_html(out)
"""
EVIDENTLY_SAYS = """
value = run.dict()["metrics"][0]["value"]
told = f"{value['count']:.0f} of {cur.shape[1]} columns drifted"
"""
NANNYML = """
import nannyml
calculator = nannyml.UnivariateDriftCalculator(column_names=list(ref.columns))
calculator.fit(ref)
found = calculator.calculate(cur)
found.plot().write_html(out)
"""
NANNYML_SAYS = """
alerts = found.filter(period="analysis").to_df().xs("alert", axis=1, level=2)
columns = int(alerts.any().groupby(level=0).any().sum())
told = f"{columns} of {ref.shape[1]} columns alert in any of {len(alerts)} chunks"
"""
FRAME = """
import json, os, sys, time, warnings
began = time.perf_counter()
warnings.filterwarnings("ignore")
import pandas as pd
ref, cur, out = pd.read_parquet(sys.argv[1]), pd.read_parquet(sys.argv[2]), sys.argv[3]
{code}
seconds = time.perf_counter() - began
{says}
print(json.dumps([seconds, os.path.getsize(out), told]))
"""


def tables(elec2: Path | None) -> Iterator[tuple[str, pd.DataFrame, pd.DataFrame]]:
    """(name, reference, current)."""
    from sklearn.datasets import load_breast_cancer

    cancer = load_breast_cancer(as_frame=True).frame.sample(frac=1, random_state=0, ignore_index=True)
    yield "breast cancer, two random halves", cancer[:285], cancer[285:].reset_index(drop=True)
    if elec2 is not None:
        market = pl.read_csv(elec2, infer_schema_length=None).select(pl.selectors.numeric()).to_pandas()
        yield "Elec2, first and last 10,000 rows", market[:10000], market[-10000:].reset_index(drop=True)


def measured(python: str, code: str, says: str, files: list[str]) -> str:
    """One row's cells. What fails says so in its place."""
    lines = len(code.strip().splitlines())
    text = FRAME.format(code=code, says=says)
    run = subprocess.run([python, "-c", text, *files], capture_output=True, text=True, timeout=600, check=False)
    if run.returncode:
        return f"{lines} | failed | | {(run.stderr.strip().splitlines() or ['?'])[-1]}"
    seconds, size, told = json.loads(run.stdout.strip().splitlines()[-1])
    return f"{lines} | {seconds:.1f} | {size / 1000:,.0f} | {told}"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("elec2", nargs="?", type=Path, help="a CSV of Elec2")
    parser.add_argument("--nannyml", default="", help="the Python of an environment with NannyML")
    asked = parser.parse_args(arguments)
    tools = [
        ("drift_pipeline", sys.executable, OURS, OURS_SAYS),
        ("Evidently", sys.executable, EVIDENTLY, EVIDENTLY_SAYS),
    ]
    tools += [("NannyML", asked.nannyml, NANNYML, NANNYML_SAYS)] if asked.nannyml else []
    for name, reference, current in tables(asked.elec2):
        print(f"\n{name}: {len(reference):,} and {len(current):,} rows, {current.shape[1]} columns\n")
        print("| tool | lines | seconds | page, kB | says |\n|---|---|---|---|---|")
        with tempfile.TemporaryDirectory() as folder:
            files = [f"{folder}/{side}.parquet" for side in ("reference", "current")]
            for frame, file in zip((reference, current), files, strict=True):
                frame.to_parquet(file)
            for tool, python, code, says in tools:
                print(f"| {tool} | {measured(python, code, says, [*files, f'{folder}/{tool}.html'])} |", flush=True)


if __name__ == "__main__":
    main()
