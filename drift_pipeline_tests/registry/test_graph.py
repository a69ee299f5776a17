"""A bundle's graph is what its files are, or the bundle is refused; the digest covers steps, edges and order."""

from collections.abc import Callable, Mapping
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from drift_pipeline.control.canonical import canonical, sha256
from drift_pipeline.errors import DriftError, InputError, IntegrityError
from drift_pipeline.registry.archive import unpacked_bytes
from drift_pipeline.registry.backends.local import LocalRegistry
from drift_pipeline.registry.bundle import Bundle, dump_pipeline, make_bundle, read_manifest
from drift_pipeline.registry.graph import listed_steps
from drift_pipeline.spec import ModelSpec
from drift_pipeline.training.graph import Graph, load_model
from drift_pipeline.training.trainers import TRAINERS, fit, score
from drift_pipeline_tests.training.worlds import graph_spec, history

FEATURES = {"amount": "numeric", "age": "numeric", "device": "categorical"}


def fitted(spec: ModelSpec) -> bytes:
    rows = history(600)
    rows = rows.with_columns(retrieval=rows["amount"])
    return dump_pipeline(fit(TRAINERS["logistic_regression"].build({}, spec, 0), rows, spec.features))


@cache
def files() -> Mapping[str, bytes]:
    spec = graph_spec()
    return {f"{name}.skops": fitted(spec.of_step(name)) for name in spec.steps}


def fields() -> dict[str, Any]:
    """What a bundle of `retrieval` and `ranking` says."""
    graph = [
        {
            "name": name,
            "inputs": [*step.inputs],
            "threshold": None,
            "trainer": step.trainer,
            "version": "v1",
            "sha256": sha256(files()[f"{name}.skops"]),
        }
        for name, step in graph_spec().steps.items()
    ]
    return {"model": "fraud", "version": "v1", "features": FEATURES, "graph": graph}


def sealed(told: Mapping[str, Any], held: Mapping[str, bytes]) -> tuple[str, bytes]:
    """A manifest as a stranger writes it: whole by itself, and never looked at by `make_bundle`."""
    listed = {name: {"sha256": sha256(data), "size": len(data)} for name, data in held.items()}
    data = canonical({**told, "files": listed})
    return sha256(data), data


def test_a_graph_is_stored_a_file_a_step_and_answers_as_its_steps_do(tmp_path: Path) -> None:
    registry = LocalRegistry(tmp_path)
    bundle = registry.put(fields(), files())
    assert {*bundle.manifest["files"]} == {"retrieval.skops", "ranking.skops"}
    assert [step.name for step in listed_steps(bundle.manifest)] == ["retrieval", "ranking"]
    model = load_model(registry.get(bundle.digest))
    assert isinstance(model, Graph)
    assert len(score(model, history(50), graph_spec().features)) == 50


def other_version(told: dict[str, Any]) -> None:
    told["graph"][0]["version"] = "v2"


def other_threshold(told: dict[str, Any]) -> None:
    told["graph"][0]["threshold"] = 0.5


def other_edge(told: dict[str, Any]) -> None:
    told["graph"][1]["inputs"] = ["retrieval", "device", "age"]


@pytest.mark.parametrize("change", [other_version, other_threshold, other_edge])
def test_the_digest_covers_steps_edges_and_what_they_decide(change: Callable[[dict[str, Any]], None]) -> None:
    told = fields()
    change(told)
    assert make_bundle(told, files()).digest != make_bundle(fields(), files()).digest


def no_list(told: dict[str, Any], _: dict[str, bytes]) -> None:
    told["graph"] = {"retrieval": {}}


def no_steps(told: dict[str, Any], _: dict[str, bytes]) -> None:
    told["graph"] = []


def no_mapping(told: dict[str, Any], _: dict[str, bytes]) -> None:
    told["graph"][0] = "retrieval"


def no_features(told: dict[str, Any], _: dict[str, bytes]) -> None:
    del told["features"]


def odd_kind(told: dict[str, Any], _: dict[str, bytes]) -> None:
    told["features"] = {**FEATURES, "age": ["numeric"]}


def two_of_one_name(told: dict[str, Any], _: dict[str, bytes]) -> None:
    told["graph"].append(deepcopy(told["graph"][1]))


def no_name(told: dict[str, Any], _: dict[str, bytes]) -> None:
    told["graph"][0]["name"] = ["retrieval"]


def a_path(told: dict[str, Any], _: dict[str, bytes]) -> None:
    told["graph"][0]["name"] = "../../retrieval"


def a_long_name(told: dict[str, Any], _: dict[str, bytes]) -> None:
    told["graph"][0]["name"] = "a" * 100_000


def a_feature(told: dict[str, Any], _: dict[str, bytes]) -> None:
    told["graph"][0]["name"] = "age"


def a_cycle(told: dict[str, Any], _: dict[str, bytes]) -> None:
    told["graph"][0]["inputs"] = ["amount", "ranking"]


def out_of_order(told: dict[str, Any], _: dict[str, bytes]) -> None:
    told["graph"].reverse()


def missing_input(told: dict[str, Any], _: dict[str, bytes]) -> None:
    told["graph"][1]["inputs"] = ["retrieval", "nothing"]


def odd_inputs(told: dict[str, Any], _: dict[str, bytes]) -> None:
    told["graph"][1]["inputs"] = [["retrieval"], 7]


def unreachable(told: dict[str, Any], held: dict[str, bytes]) -> None:
    held["dead.skops"] = held["retrieval.skops"]
    told["graph"].insert(1, {**told["graph"][0], "name": "dead"})


def odd_threshold(told: dict[str, Any], _: dict[str, bytes]) -> None:
    told["graph"][0]["threshold"] = 7


def huge_depth(told: dict[str, Any], held: dict[str, bytes]) -> None:
    """A chain of a thousand steps."""
    last, one = told["graph"][0], told["graph"][0]
    for number in range(1000):
        held[f"s{number}.skops"] = held["retrieval.skops"]
        one = {**last, "name": f"s{number}", "inputs": [one["name"], "age", "device"]}
        told["graph"].append(one)


def extra_file(_: dict[str, Any], held: dict[str, bytes]) -> None:
    held["second.skops"] = held["ranking.skops"]


def one_pipeline_as_well(_: dict[str, Any], held: dict[str, bytes]) -> None:
    held["model.skops"] = held["ranking.skops"]


def missing_file(_: dict[str, Any], held: dict[str, bytes]) -> None:
    del held["ranking.skops"]


def no_digest(told: dict[str, Any], _: dict[str, bytes]) -> None:
    del told["graph"][0]["sha256"]


def swapped_digests(told: dict[str, Any], _: dict[str, bytes]) -> None:
    first, second = told["graph"]
    first["sha256"], second["sha256"] = second["sha256"], first["sha256"]


def swapped_files(_: dict[str, Any], held: dict[str, bytes]) -> None:
    held["ranking.skops"], held["retrieval.skops"] = held["retrieval.skops"], held["ranking.skops"]


HOSTILE: dict[str, tuple[Callable[[dict[str, Any], dict[str, bytes]], None], str]] = {
    "no list": (no_list, "the bundle's graph is no list of steps"),
    "no steps": (no_steps, "0 steps are no graph"),
    "a step that is no mapping": (no_mapping, "the bundle's graph is no list of steps"),
    "no features": (no_features, "the bundle's graph has no features to take"),
    "a feature of no kind": (odd_kind, "the bundle's graph has no features to take"),
    "two steps of one name": (two_of_one_name, "two steps 'ranking'"),
    "a step without a name": (no_name, "or one without a name"),
    "a path": (a_path, "'../../retrieval' cannot name a step"),
    "a long name": (a_long_name, "cannot name a step"),
    "a feature's name": (a_feature, "the step age has the name of a column"),
    "a cycle": (a_cycle, "are a cycle"),
    "out of order": (out_of_order, "a step comes before what it takes"),
    "a missing input": (missing_input, "takes 'nothing', which is no feature and no step"),
    "inputs that are no names": (odd_inputs, "the bundle's step 'ranking' is none"),
    "an unreachable step": (unreachable, "no step takes dead or ranking"),
    "an odd threshold": (odd_threshold, "the bundle's step 'retrieval' is none"),
    "huge depth": (huge_depth, "1002 steps are no graph"),
    "an extra step file": (extra_file, "disagree: second.skops is the file of no step"),
    "one pipeline as well": (one_pipeline_as_well, "disagree: model.skops is the file of no step"),
    "a missing step file": (missing_file, "disagree: ranking.skops is missing from the bundle"),
    "a step without a digest": (no_digest, "retrieval.skops is another file than its step's"),
    "swapped digests": (swapped_digests, "retrieval.skops is another file than its step's"),
    "swapped files": (swapped_files, "retrieval.skops is another file than its step's"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_graph_that_disagrees_with_itself_or_its_files_is_refused_in_a_sentence(what: str) -> None:
    """Whoever wrote it: read from a registry, and put into one."""
    harm, said = HOSTILE[what]
    told, held = fields(), dict(files())
    harm(told, held)
    digest, data = sealed(told, held)
    with pytest.raises(IntegrityError, match="bundle") as refused:
        read_manifest(digest, data)
    assert said in str(refused.value)
    assert len(str(refused.value)) < 400
    with pytest.raises(InputError) as also:
        make_bundle(told, held)
    assert said in str(also.value)


def test_files_that_were_swapped_with_their_digests_were_fitted_on_other_columns() -> None:
    """Such a bundle is whole by itself; what each file was fitted on tells."""
    told, held = fields(), dict(files())
    swapped_digests(told, held)
    swapped_files(told, held)
    with pytest.raises(IntegrityError, match=r"retrieval.skops: was fitted on retrieval, age, device, and its step"):
        load_model(make_bundle(told, held))


@pytest.mark.parametrize("step", ["retrieval", "ranking"])
def test_one_byte_of_one_step_is_refused_by_name(tmp_path: Path, step: str) -> None:
    registry = LocalRegistry(tmp_path)
    digest = registry.put(fields(), files()).digest
    (path,) = tmp_path.rglob(f"{step}.skops")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(IntegrityError, match=rf"{step}.skops is not the file that was registered"):
        registry.get(digest)


@pytest.mark.parametrize(
    ("held", "said"),
    [
        ({"model.skops": b"x", "ranking.skops": b"y"}, "ranking.skops is the file of no step"),
        ({"train.py": b"x"}, "the bundle holds no model.skops"),
    ],
)
def test_a_bundle_without_a_graph_is_one_pipeline(held: dict[str, bytes], said: str) -> None:
    with pytest.raises(IntegrityError, match=said):
        load_model(make_bundle({"model": "fraud"}, held))


def test_a_step_of_a_type_that_is_not_allowed_is_refused_by_its_file() -> None:
    import logging

    import skops.io

    told, held = fields(), dict(files())
    held["ranking.skops"] = skops.io.dumps(logging.Formatter())
    told["graph"][1]["sha256"] = sha256(held["ranking.skops"])
    with pytest.raises(DriftError, match=r"ranking.skops: the model holds types that are not allowed"):
        load_model(Bundle("sha256:" + "0" * 64, make_bundle(told, held).manifest, held))


def test_steps_that_unpack_to_too_much_together_are_refused_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each by itself is within what one pipeline may take."""
    bundle = make_bundle(fields(), files())
    sizes = [unpacked_bytes(data) for data in files().values()]
    monkeypatch.setattr("drift_pipeline.training.graph.MOST_BYTES", max(sizes))
    with pytest.raises(IntegrityError, match=rf"the steps' files take {sum(sizes):,} bytes, more than {max(sizes):,}"):
        load_model(bundle)
    told = fields()
    told["graph"][1]["sha256"] = sha256(b"junk")
    with pytest.raises(IntegrityError, match="a step's file is no archive: BadZipFile"):
        load_model(make_bundle(told, {**files(), "ranking.skops": b"junk"}))
