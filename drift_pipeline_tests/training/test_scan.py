"""What is stored is looked at as it lies there: the types of a model, and secrets, which are never told."""

import io
import json
import logging
import zipfile

import pytest

from drift_pipeline.control.canonical import canonical
from drift_pipeline.registry.bundle import dump_pipeline
from drift_pipeline.training.results import Gates, Outcome
from drift_pipeline.training.scan import allowed_types_gate, secrets_gate
from drift_pipeline.training.trainers import TRAINERS, fit
from drift_pipeline_tests.training.worlds import history, spec

PASS, FAIL, UNKNOWN = Outcome.PASS, Outcome.FAIL, Outcome.UNKNOWN
# put together here, so that none stands in this file
AWS, PASSWORD = "AKIA" + "IOSFODNN7EXAMPLQ", "correct" + "horse"
KEY = "-----BEGIN RSA " + "PRIVATE KEY-----"
GITHUB = "ghp_" + "a1B2c3D4e5F6" * 3
URL = f"https://ada:{PASSWORD}@db.example/x"


def model(name: str = "gradient_boosting", levels: str = "tv") -> bytes:
    rows = history(600).with_columns(device=history(600)["device"].replace("tv", levels))
    params = {"max_iter": 20} if name == "gradient_boosting" else {}
    return dump_pipeline(fit(TRAINERS[name].build(params, spec(), 0), rows, spec().features))


def archive(**members: bytes | str) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return made.getvalue()


@pytest.mark.parametrize("name", ["gradient_boosting", "logistic_regression"])
def test_our_own_models_pass_both_and_their_types_are_listed(name: str) -> None:
    data = model(name)
    types, secrets = allowed_types_gate({"model.skops": data}), secrets_gate({"model.skops": data})
    assert (types.outcome, secrets.outcome) == (PASS, PASS)
    assert "numpy.dtype" in types.facts["types"]
    assert types.facts["tool"].startswith("skops ")
    assert secrets.facts["tool"].startswith("detect-secrets ")


def test_a_type_that_is_not_on_the_list_fails_and_is_named() -> None:
    import skops.io

    found = allowed_types_gate({"model.skops": skops.io.dumps(logging.Formatter())})
    assert found.outcome is FAIL
    assert "logging.Formatter" in found.reason
    assert "logging.Formatter" in found.facts["types"]


@pytest.mark.parametrize("data", [b"", b"PK", b"no model", archive(**{"schema.json": "{"})])
def test_what_is_no_model_has_no_answer(data: bytes) -> None:
    assert allowed_types_gate({"model.skops": data}).outcome is UNKNOWN


SOURCE = "import os\n{}\n"
FOUND: dict[str, tuple[dict[str, bytes], str]] = {
    "a level of a column": ({"model.skops": model(levels=AWS)}, "model.skops/schema.json: AWS Access Key"),
    "text in an archive": ({"model.skops": archive(**{"a.json": json.dumps([{"k": GITHUB}])})}, "a.json: GitHub Token"),
    "bytes in an archive": (
        {"m.skops": archive(**{"a.npy": b"\x93\x00" + KEY.encode() + b"\x00"})},
        "a.npy: Private Key",
    ),
    "a long line": ({"notes.txt": (" x" * 5000 + " " + AWS + " x" * 5000).encode()}, "notes.txt: AWS Access Key"),
    "source": ({"train.py": SOURCE.format(f"url = '{URL}'").encode()}, "train.py:2: Basic Auth Credentials"),
    "a password in source": (
        {"train.py": SOURCE.format(f"password = '{PASSWORD}1'").encode()},
        "train.py:2: Secret Key",
    ),
    "an archive in one": ({"m.skops": archive(**{"a.npz": archive(**{"b.json": f'["{AWS}"]'})})}, "a.npz/b.json: AWS"),
    "let pass in a level": ({"a.json": json.dumps([f"{AWS}  # pragma: allowlist secret"]).encode()}, "AWS Access Key"),
}


@pytest.mark.parametrize(("files", "said"), FOUND.values(), ids=FOUND)
def test_a_secret_is_found_wherever_it_is_and_its_value_is_told_nowhere(
    files: dict[str, bytes], said: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.DEBUG):
        found = secrets_gate(files)
    assert found.outcome is FAIL
    assert said in found.reason
    told = canonical(Gates((found,)).to_json()).decode() + caplog.text + "".join(capfd.readouterr())
    assert not any(value in told for value in (AWS, PASSWORD, GITHUB, KEY))


@pytest.mark.parametrize(
    "line",
    [
        "token = os.environ['TOKEN']",
        f"key = '{AWS}'  # pragma: allowlist secret",
        "digest = 'sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef'",
        "host = '8.8.8.8'",
    ],
)
def test_what_is_no_secret_or_is_let_pass_in_source_passes(line: str) -> None:
    assert secrets_gate({"train.py": SOURCE.format(line).encode()}).outcome is PASS


def test_an_archive_that_cannot_be_unpacked_has_no_answer() -> None:
    whole = archive(**{"schema.json": "[1]" * 1000})
    assert secrets_gate({"model.skops": whole.replace(b"schema.json", b"schemb.json", 1)}).outcome is UNKNOWN
