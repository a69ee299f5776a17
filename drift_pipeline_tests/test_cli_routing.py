"""`drift deploy routing`: what is applied of a model, and how its traffic stands."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from drift_pipeline_tests.contracts.test_runner import kubeconfig
from drift_pipeline_tests.evidence.test_gitops import adopted
from drift_pipeline_tests.evidence.test_rendering import declared
from drift_pipeline_tests.evidence.worlds import MODEL, Home
from drift_pipeline_tests.fakes.kubernetes_api import Api, serving
from drift_pipeline_tests.replay.worlds import drift

POD = "pod: {containers: [{image: reco, args: ['{digest}']}]}\nhosts: ['{model}']\n"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    made = Home(tmp_path / "home")
    declared(tmp_path / "models" / MODEL)
    monkeypatch.setenv("DRIFT_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("DRIFT_CONTROLLER", "argo")
    monkeypatch.setenv("DRIFT_CONTROLLER_FILE", str(tmp_path / "routing.yaml"))
    (tmp_path / "routing.yaml").write_text(POD)
    yield made
    made.store.close()


@pytest.mark.live
def test_the_objects_of_a_model_are_printed_and_the_controller_is_asked(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = ("deploy", "routing", MODEL, "--home", home.settings.home)
    before = drift(*run)
    assert (before.code, "is not adopted" in before.err) == (4, True), before.err
    adopted(home)
    printed = drift(*run)
    assert printed.code == 0, printed.err
    kinds = [one["kind"] for one in yaml.safe_load_all(printed.out)]
    assert kinds == ["Service", "Service", "VirtualService", "Rollout"]
    with serving(Api()) as port:
        (tmp_path / "routing.yaml").write_text(f"{POD}kubeconfig: {kubeconfig(tmp_path, port)}\n")
        checked = drift(*run, "--check")
    assert (checked.code, checked.out.splitlines()) == (
        1,
        [f"{MODEL}: argo: absent, 0 % of the traffic", f"{MODEL}: the next tick tells it to create"],
    ), checked.err
    assert drift(*run, "--check").code == 3, "it does not answer"
    monkeypatch.setenv("DRIFT_CONTROLLER", "gateway")
    assert drift(*run).code == 4
