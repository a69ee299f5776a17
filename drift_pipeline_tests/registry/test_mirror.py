"""What a mirror is told, as plain facts."""

import pytest

from drift_pipeline.errors import InputError
from drift_pipeline.registry.mirror import Standing, digest_alias, folded
from drift_pipeline.settings import Settings

A, B = "sha256:a", "sha256:b"


@pytest.mark.parametrize(
    ("told", "found"),
    [
        (
            [Standing("m", A, add=["champion"]), Standing("m", B, add=["champion"])],
            {A: ((), ()), B: (("champion",), ())},
        ),
        ([Standing("m", A, add=["x"]), Standing("m", A, drop=["x"])], {A: ((), ("x",))}),
        ([Standing("m", A, drop=["x"]), Standing("m", A, add=["x"])], {A: (("x",), ())}),
        ([Standing("m", A, add=["x"]), Standing("n", B, add=["x"])], {A: (("x",), ()), B: (("x",), ())}),
        ([Standing("m", A, add=["x"]), Standing("m", A, add=["x"])], {A: (("x",), ())}),
    ],
    ids=["an alias moves", "added, then dropped", "dropped, then added", "of another name", "told twice"],
)
def test_what_is_folded_is_as_if_told_in_order(
    told: list[Standing], found: dict[str, tuple[tuple[str, ...], tuple[str, ...]]]
) -> None:
    assert {one.digest: (tuple(one.add), tuple(one.drop)) for one in folded(told)} == found


def test_metadata_of_a_version_is_merged_key_by_key_and_a_link_stays() -> None:
    said = [Standing("m", A, metadata={"phases": {"1": "shadow"}}, link=True), Standing("m", B)]
    (_, one) = folded([*said, Standing("m", A, metadata={"phases": {"2": "full"}, "passed": True})])
    assert one.metadata == {"phases": {"1": "shadow", "2": "full"}, "passed": True}
    assert one.link


def test_an_alias_of_a_digest_has_no_colon() -> None:
    assert digest_alias("sha256:ab") == "sha256-ab"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("WANDB_PROJECT", "a/b"),
        ("WANDB_ENTITY", "a b"),
        ("WANDB_BASE_URL", "http://user:password@host"),
        ("WANDB_BASE_URL", "api.wandb.ai"),
        ("WANDB_MODE", "shared"),
        ("DRIFT_WANDB_REGISTRY", "a:b"),
    ],
)
def test_variables_of_wandb_are_held_to_their_form_only_where_it_is_in_use(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    Settings()
    monkeypatch.setenv("DRIFT_REGISTRY", "wandb")
    with pytest.raises(InputError, match=name.removeprefix("DRIFT_")) as refused:
        Settings()
    assert "password" not in str(refused.value)


def test_another_registry_is_refused_by_the_name_of_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRIFT_REGISTRY", "mlflow")
    with pytest.raises(InputError, match=r"^DRIFT_REGISTRY: .*'local' or 'wandb'"):
        Settings()


@pytest.mark.parametrize(
    ("mode", "key", "sends"),
    [("", "k", True), ("online", "k", True), ("offline", "k", False), ("dryrun", "k", False), ("", "", False)],
)
def test_nothing_is_sent_without_a_key_or_where_the_mode_forbids_it(
    monkeypatch: pytest.MonkeyPatch, mode: str, key: str, sends: bool
) -> None:
    monkeypatch.setenv("WANDB_MODE", mode)
    monkeypatch.setenv("WANDB_API_KEY", key)
    assert Settings(registry_kind="wandb").wandb_sends is sends


def test_our_own_variable_goes_before_that_of_wandb_and_the_key_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_PROJECT", "theirs")
    monkeypatch.setenv("DRIFT_WANDB_PROJECT", "ours")
    monkeypatch.setenv("WANDB_API_KEY", "a-secret")
    settings = Settings(registry_kind="wandb")
    assert settings.wandb_project == "ours"
    assert "a-secret" not in f"{settings!r} {settings}"
