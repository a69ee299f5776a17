"""The GitOps repository: what the audit names is in signed commits, and nothing that happens to git loses any of it."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from drift_pipeline.clock import DAY, HOUR, MINUTE, ManualClock
from drift_pipeline.control.commits import commit
from drift_pipeline.control.git import BRANCH, Git
from drift_pipeline.control.signing import Signer
from drift_pipeline.control.store import GITOPS, Entry, Put
from drift_pipeline.control.trust import dismiss, open_store, rotate
from drift_pipeline.errors import UnavailableError
from drift_pipeline.evidence.approve import Given, approve
from drift_pipeline.evidence.gitops import repository
from drift_pipeline.evidence.gitops.progress import behind, read
from drift_pipeline.evidence.gitops.publishing import publish
from drift_pipeline.evidence.placing import FILE
from drift_pipeline.evidence.verification import verify_home
from drift_pipeline.loop.fleet import Fleet
from drift_pipeline.loop.home import opened
from drift_pipeline.loop.status import standing
from drift_pipeline.settings import Settings
from drift_pipeline_tests.evidence.worlds import AT, MODEL, Home
from drift_pipeline_tests.replay.worlds import drift


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    made = Home(tmp_path / "home")
    made.settings = made.settings.model_copy(update={"git": "git"})
    yield made
    made.store.close()


def tick(home: Home, **changed: Any) -> None:
    publish(home.settings.model_copy(update=changed), home.store, home.clock)


def give(home: Home, label: str = "ada") -> Given:
    signer = Signer.load(home.private(label)) if home.private(label).exists() else home.signer(label)
    found = approve(home.settings, signer, MODEL, "v2", "the gates hold", 14 * DAY, home.clock)
    assert isinstance(found, Given), found
    return found


def adopted(home: Home, name: str = "v1", event: str = "model.adopted", **told: Any) -> None:
    """Who answers, in a record as the loop writes it."""
    before = home.store.get("model", MODEL)
    put = Put("model", MODEL, {"digest": f"sha256:{'0' * 64}", "version": name}, before.generation if before else 0)
    home.store.commit(Entry("loop", event, MODEL, details=told), [put])


def git(folder: Path, *arguments: str) -> str:
    """As an auditor runs it."""
    command = ["git", "-c", "safe.directory=*", "-c", "gpg.ssh.allowedSignersFile=allowed_signers", "-C", str(folder)]
    return subprocess.run([*command, *arguments], capture_output=True, text=True, check=True).stdout


def piped(folder: Path, given: bytes, *arguments: str) -> str:
    ran = subprocess.run(["git", "-C", folder, *arguments], input=given, capture_output=True, check=True)
    return ran.stdout.decode().strip()


def history(home: Home, folder: Path | None = None) -> list[tuple[str, str, str]]:
    """(is the signature good, by whom, about what), oldest first."""
    told = git(folder or home.settings.gitops, "log", "--reverse", "--format=%G?%x00%GS%x00%s", BRANCH)
    return [tuple(line.split("\0")) for line in told.splitlines()]  # type: ignore[misc]


def names(home: Home) -> set[str]:
    return set(git(home.settings.gitops, "-c", "core.quotePath=false", "ls-tree", "-r", "--name-only", BRANCH).split())


def whole(home: Home, folder: Path | None = None) -> bool:
    """Every signature is good, the repository is sound, and each file in it is what lies there."""
    git(home.settings.gitops, "fsck", "--strict", "--no-dangling")
    assert {good for good, _, _ in history(home, folder)} == {"G"}
    assert git(home.settings.gitops, "diff", "HEAD", "--stat") == ""
    return home.store.pending(topic=GITOPS) == []


def head(folder: Path) -> str:
    return git(folder, "rev-parse", BRANCH).strip()


def test_what_happened_is_told_by_signed_commits_and_an_approval_by_its_approvers(home: Home) -> None:
    home.candidate()
    adopted(home)
    tick(home)
    found = give(home)
    home.clock.advance_to(AT + HOUR)
    tick(home)
    own = f"home@{home.trainer.key_id[-12:]}"
    ada = f"ada@{Signer.load(home.private('ada')).key_id[-12:]}"
    told = history(home)
    assert [(good, by) for good, by, _ in told] == [("G", own), ("G", own), ("G", ada), ("G", own)]
    assert told[0][2] == "2 events, records 1 to 3"
    assert told[1][2] == "key.added ada (record 4)"
    assert told[2][2] == "approval.given fraud (record 5)"
    approval = found.path.relative_to(home.settings.gitops).as_posix()
    assert git(home.settings.gitops, "log", "--format=%an", "--", approval).split() == ["ada"]
    assert {approval, "allowed_signers", "champions/fraud.json"} <= names(home)
    assert {name for name in names(home) if name.startswith("checkpoints/")} == {
        f"checkpoints/{path.name}" for path in home.settings.checkpoints.iterdir()
    }
    assert (
        git(home.settings.gitops, "log", "-1", "--format=%ad %cd", "--date=unix", BRANCH).split()
        == [f"{(AT + HOUR).timestamp():.0f}"] * 2
    )
    assert head(home.settings.gitops_bare) == head(home.settings.gitops)
    assert git(home.settings.gitops, "status", "--porcelain") == ""
    assert whole(home)
    assert verify_home(home.settings).ok


def test_no_private_key_is_written_for_a_commit(home: Home) -> None:
    home.candidate()
    give(home)
    tick(home)
    private = [path for path in home.settings.home.rglob("*") if path.is_file() and b"PRIVATE" in path.read_bytes()]
    assert [path.parent for path in private] == [home.settings.keys]
    assert {path.stat().st_mode & 0o077 for path in private} == {0}


def test_a_tick_where_nothing_changed_starts_no_process(home: Home) -> None:
    tick(home)
    before = head(home.settings.gitops)
    tick(home, git="/nowhere/git")
    assert read(home.store)[0].committing.why == ""
    assert head(home.settings.gitops) == before


OLD = "#!/bin/sh\necho git version 2.33.8\n"


@pytest.mark.parametrize(
    ("program", "said"), [("", "cannot be run"), (OLD, "git 2.34 or later is wanted"), ("x", "cannot be run")]
)
def test_without_a_git_that_will_do_files_are_as_ever_and_status_says_why(
    home: Home, tmp_path: Path, program: str, said: str
) -> None:
    named = tmp_path / "git"
    if program:
        named.write_text(program)
        named.chmod(0o755)
    adopted(home)
    tick(home, git=str(named))
    assert (home.settings.gitops / "champions" / "fraud.json").is_file()
    told = behind(home.store, home.clock.now())
    assert "2 events not committed since 2026-03-02 12:00 UTC" in told
    assert said in told
    assert verify_home(home.settings).ok
    tick(home)  # not again at once
    assert not (home.settings.gitops / ".git" / BRANCH).exists()
    home.clock.advance_to(AT + HOUR)
    tick(home)
    assert behind(home.store, home.clock.now()) == ""
    assert whole(home)


def test_each_call_has_an_end(tmp_path: Path) -> None:
    program = tmp_path / "git"
    program.write_text("#!/bin/sh\nsleep 60 &\nsleep 60\n")
    program.chmod(0o755)
    began = time.monotonic()
    with pytest.raises(UnavailableError, match="did not end within 0 s"):
        Git(str(program), tmp_path).run("push", seconds=0.2)
    assert time.monotonic() - began < 5


def test_a_remote_that_is_down_delays_the_push_and_loses_nothing(home: Home, tmp_path: Path) -> None:
    remote = tmp_path / "elsewhere.git"
    home.settings = home.settings.model_copy(update={"gitops_remote": secret(remote)})
    tick(home)
    told = behind(home.store, home.clock.now())
    assert "1 commits not pushed since 2026-03-02 12:00 UTC: git push" in told
    adopted(home)
    tick(home)  # is committed, though the remote is not asked again at once
    assert behind(home.store, home.clock.now()).startswith("2 commits not pushed since 2026-03-02 12:00")
    subprocess.run(["git", "init", "--quiet", "--bare", str(remote)], check=True)
    tick(home)
    home.clock.advance_to(AT + 2 * MINUTE)
    tick(home)
    assert behind(home.store, home.clock.now()) == ""
    assert head(remote) == head(home.settings.gitops)
    assert not home.settings.gitops_bare.exists()


def secret(remote: object) -> Any:
    return Settings(gitops_remote=str(remote)).gitops_remote


def test_a_remotes_path_is_from_where_the_process_stands(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    subprocess.run(["git", "init", "--quiet", "--bare", "there.git"], check=True)
    tick(home, gitops_remote=secret("there.git"))
    assert head(tmp_path / "there.git") == head(home.settings.gitops)


def test_a_remote_with_other_commits_is_not_overwritten(home: Home, tmp_path: Path) -> None:
    tick(home)
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "--quiet", str(home.settings.gitops_bare), str(clone))
    (clone / "other").write_text("of somebody else")
    git(clone, "add", "other")
    git(clone, "-c", "user.name=eve", "-c", "user.email=eve@x", "commit", "--quiet", "-m", "other")
    git(clone, "push", "--quiet")
    theirs = head(home.settings.gitops_bare)
    adopted(home)
    tick(home)
    assert head(home.settings.gitops_bare) == theirs
    assert "it has commits that are not here; merge them" in behind(home.store, home.clock.now())
    me = ("-c", "user.name=ops", "-c", "user.email=o@x")
    git(home.settings.gitops, *me, "pull", "--quiet", "--no-rebase", str(home.settings.gitops_bare), "main")
    adopted(home, "v2", "rollout.full")
    home.clock.advance_to(AT + HOUR)
    tick(home)
    assert behind(home.store, home.clock.now()) == ""
    assert {"other", "champions/fraud.json"} <= names(home)


def test_a_repository_that_was_deleted_goes_on_from_the_remotes_history(home: Home) -> None:
    tick(home)
    shutil.rmtree(home.settings.gitops / ".git")
    adopted(home)
    tick(home)
    assert len(history(home)) == 2
    assert head(home.settings.gitops_bare) == head(home.settings.gitops)


def test_hooks_and_configuration_and_environment_of_others_change_nothing(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tick(home)
    touched = tmp_path / "touched"
    hook = f"#!/bin/sh\ntouch {touched}\nexit 1\n"
    mine = tmp_path / "me"
    mine.mkdir()
    (mine / ".gitconfig").write_text(
        f"[core]\nhooksPath = {mine}\nfsmonitor = {mine}/pre-push\nautocrlf = true\n[commit]\ngpgsign = true\n"
        f'[gpg]\nprogram = {mine}/pre-push\n[gpg "ssh"]\nprogram = {mine}/pre-push\n[push]\ngpgsign = true\n'
        f'[url "/nowhere/"]\ninsteadOf = {tmp_path}\n[user]\nname = eve\n'
    )
    for folder in (mine, home.settings.gitops / ".git" / "hooks"):
        folder.mkdir(exist_ok=True)
        for name in ("pre-push", "reference-transaction", "post-index-change", "pre-commit"):
            (folder / name).write_text(hook)
            (folder / name).chmod(0o755)
    for name, value in {
        "HOME": str(mine),
        "GIT_DIR": "/nowhere",
        "GIT_WORK_TREE": "/nowhere",
        "GIT_INDEX_FILE": "/nowhere",
        "GIT_OBJECT_DIRECTORY": "/nowhere",
        "GIT_COMMITTER_NAME": "eve",
        "GIT_AUTHOR_DATE": "yesterday",
        "GIT_SSH_COMMAND": str(mine / "pre-push"),
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "core.hooksPath",
        "GIT_CONFIG_VALUE_0": str(mine),
        "GIT_CONFIG_PARAMETERS": f"'core.hooksPath={mine}'",
        "GIT_TRACE": str(touched),
        "GIT_EXEC_PATH": "/nowhere",
    }.items():
        monkeypatch.setenv(name, value)
    adopted(home)
    tick(home)
    monkeypatch.undo()
    assert not touched.exists()
    assert behind(home.store, home.clock.now()) == ""
    assert head(home.settings.gitops_bare) == head(home.settings.gitops)
    assert whole(home)


@pytest.mark.parametrize("how", ["replace", "graft"])
def test_another_commit_in_the_place_of_ours_is_not_what_the_next_one_goes_on_from(home: Home, how: str) -> None:
    """Who can write into a repository can have git show another commit than the one that is named."""
    adopted(home)
    tick(home)
    folder, head = home.settings.gitops, git(home.settings.gitops, "rev-parse", BRANCH).strip()
    blob = piped(folder, b"evil", "hash-object", "-w", "--stdin")
    tree = piped(folder, f"100644 blob {blob}\tevil\n".encode(), "mktree")
    evil = git(folder, "-c", "user.name=eve", "-c", "user.email=eve@x", "commit-tree", tree, "-m", "evil").strip()
    grafts = folder / ".git" / "info" / "grafts"
    git(folder, "replace", head, evil) if how == "replace" else grafts.write_text(f"{head} {evil}\n")
    home.candidate()
    give(home)
    grafts.unlink(missing_ok=True)
    made = git(folder, "--no-replace-objects", "log", "--reverse", "--format=%H", BRANCH).split()
    assert (made[0], len(made) > 1) == (head, True)
    assert "evil" not in git(folder, "--no-replace-objects", "ls-tree", "-r", "--name-only", BRANCH).split()


def test_a_remote_that_would_run_a_program_runs_none(home: Home, tmp_path: Path) -> None:
    touched = tmp_path / "touched"
    for remote in (f"ext::sh -c touch% {touched}", f"--upload-pack=touch {touched}", "-x", "::"):
        home.clock.advance_to(home.clock.now() + 2 * HOUR)
        tick(home, gitops_remote=secret(remote))
        assert "not pushed" in behind(home.store, home.clock.now())
    assert not touched.exists()


def test_a_password_in_the_remotes_address_is_told_to_nobody(home: Home) -> None:
    tick(home, gitops_remote=secret("http://bob:hunter2@127.0.0.1:1/x.git"))
    told = behind(home.store, home.clock.now())
    assert "127.0.0.1" in told
    kept = [path.read_bytes() for path in home.settings.home.rglob("*") if path.is_file()]
    assert "hunter2" not in told + repr(home.settings)
    assert not any(b"hunter2" in data for data in kept)


def test_a_repository_of_somebody_elses_is_left_alone(home: Home) -> None:
    home.settings.gitops.mkdir(exist_ok=True)
    git(home.settings.gitops, "init", "--quiet")
    before = sorted((path, path.stat().st_mtime_ns) for path in (home.settings.gitops / ".git").rglob("*"))
    adopted(home)
    tick(home)
    assert before == sorted((path, path.stat().st_mtime_ns) for path in (home.settings.gitops / ".git").rglob("*"))
    assert "was not made here, and is left alone" in behind(home.store, home.clock.now())
    assert (home.settings.gitops / "champions" / "fraud.json").is_file()


@pytest.mark.parametrize(
    "name", ["index.lock", f"{BRANCH}.lock", "HEAD.lock", "packed-refs.lock", "refs/drift/next.lock"]
)
def test_a_lock_that_a_dead_git_left_is_no_obstacle(home: Home, name: str) -> None:
    tick(home)
    lock = home.settings.gitops / ".git" / name
    lock.parent.mkdir(parents=True, exist_ok=True)
    lock.touch()
    os.utime(lock, (time.time() - 3600,) * 2)
    adopted(home)
    tick(home)
    assert behind(home.store, home.clock.now()) == ""
    assert head(home.settings.gitops_bare) == head(home.settings.gitops)


def test_what_nobody_recorded_is_not_committed_and_what_was_changed_neither(home: Home) -> None:
    home.candidate()
    found = give(home)
    tick(home)
    folder = home.settings.gitops
    for name in (
        "core",
        "notes\nM 100644 inline x",
        "approvals/x.pem",
        "checkpoints/999999999999.dsse.json",
        ".gitignore",
    ):
        (folder / name).write_text("*")
    (folder / "specs").mkdir(exist_ok=True)
    (folder / "specs" / f"{'0' * 64}.json").write_text("{}")
    was = found.path.read_bytes()
    found.path.write_text("{}")
    adopted(home)
    tick(home)
    approval = found.path.relative_to(folder).as_posix()
    assert git(folder, "show", f"{BRANCH}:{approval}").encode() == was
    assert {name.partition("/")[0] for name in names(home)} == {
        "allowed_signers",
        "approvals",
        "champions",
        "checkpoints",
        "manifests",
    }
    assert not any("9999" in name for name in names(home))


def test_an_audited_file_of_an_odd_name_is_one_file(home: Home) -> None:
    odd = 'a "b"\n\\M 100644 inline evil\né.dsse.json'
    path = home.settings.gitops / "approvals" / MODEL / odd
    path.parent.mkdir(parents=True)
    path.write_text("{}")
    digest = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    entry = Entry("loop", "approval.accepted", MODEL)
    home.store.commit(entry, [Put(FILE, f"{MODEL}/gitops/approvals/{MODEL}/{odd}", {"digest": digest})])
    tick(home)
    told = git(home.settings.gitops, "ls-tree", "-rz", "--name-only", BRANCH).split("\0")
    assert f"approvals/{MODEL}/{odd}" in told
    assert whole(home)


def test_a_withdrawn_approval_leaves_the_tree_and_stays_in_the_history(home: Home) -> None:
    home.candidate()
    found = give(home)
    tick(home)
    name = found.path.relative_to(home.settings.gitops).as_posix()
    found.path.unlink()
    row = home.store.find(FILE)[0]
    home.store.commit(
        Entry("loop", "approval.withdrawn", MODEL), [Put(FILE, row.key, {"digest": None}, row.generation)]
    )
    tick(home)
    assert name not in names(home)
    assert (
        git(home.settings.gitops, "log", "--format=%s", "--diff-filter=D", "--", name)
        .strip()
        .startswith("approval.withdrawn")
    )
    assert whole(home)


def test_commits_of_a_key_that_was_revoked_or_handed_over_stay_good_and_later_ones_are_not(home: Home) -> None:
    home.candidate()
    give(home)
    tick(home)
    home.clock.advance_to(AT + HOUR)
    dismiss(home.settings, home.store, Signer.load(home.private("ada")).key_id, "ops")
    rotate(home.settings, home.store, "ops")
    home.clock.advance_to(AT + 2 * HOUR)
    tick(home)
    assert {good for good, _, _ in history(home)} == {"G"}
    assert len({by for _, by, _ in history(home)}) == 3
    ada, place = Signer.load(home.private("ada")), Git("git", home.settings.gitops / ".git")
    commit(place, {"x": b"x"}, ada, ada.public, "too late", home.clock.now())
    assert history(home)[-1][0] != "G"


def test_new_approvals_wait_for_a_remote_that_was_set_by_hand(home: Home, tmp_path: Path) -> None:
    home.candidate()
    remote = tmp_path / "elsewhere.git"
    home.settings = home.settings.model_copy(update={"gitops_remote": secret(remote)})
    with pytest.raises(UnavailableError, match="no new approval while DRIFT_GITOPS_REMOTE does not take it: git push"):
        give(home)
    assert home.filed() == []
    subprocess.run(["git", "init", "--quiet", "--bare", str(remote)], check=True)
    give(home)
    assert [by.partition("@")[0] for _, by, _ in history(home, home.settings.gitops)] == ["home", "ada"]
    assert head(remote) == head(home.settings.gitops)


def test_without_a_remote_of_its_own_an_approval_waits_for_no_git(home: Home) -> None:
    home.candidate()
    home.settings = home.settings.model_copy(update={"git": "/nowhere/git"})
    give(home)
    home.settings = home.settings.model_copy(update={"git": "git"})
    home.clock.advance_to(AT + HOUR)
    tick(home)
    assert [by.partition("@")[0] for _, by, _ in history(home)] == ["home"]
    assert whole(home)


def document(home: Home) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((home.settings.gitops / "champions" / "fraud.json").read_bytes())
    return found


def test_a_champions_file_tells_version_rollout_approvals_and_record(home: Home) -> None:
    adopted(home)
    tick(home)
    assert (document(home)["version"], document(home)["event"], document(home)["approvals"]) == (
        "v1",
        "model.adopted",
        [],
    )
    by = [{"key_id": "a" * 64, "person": "ada"}]
    adopted(home, "v2", "rollout.full", rollout_id="fraud-v2", approved_by=by)
    tick(home)
    told, last = document(home), home.store.head()
    assert last is not None
    assert (told["version"], told["rollout"], told["approvals"]) == ("v2", "fraud-v2", by)
    assert (told["seq"], told["record"], told["since"]) == (last.seq, last.hash, last.at)
    adopted(home, "v1", "rollout.rolled_back", rollout_id="fraud-v2")
    tick(home)
    assert (document(home)["version"], document(home)["event"]) == ("v1", "rollout.rolled_back")
    assert len(git(home.settings.gitops, "log", "--format=%H", "--", "champions/fraud.json").split()) == 3


@pytest.mark.parametrize("harm", ["change", "delete", "add", "signers"])
def test_verify_names_a_champions_file_that_is_not_what_the_audit_tells(home: Home, harm: str) -> None:
    adopted(home)
    tick(home)
    assert verify_home(home.settings).ok
    path = home.settings.gitops / "champions" / "fraud.json"
    if harm == "change":
        path.write_text(path.read_text().replace('"v1"', '"v9"'))
    elif harm == "delete":
        path.unlink()
    else:
        path = home.settings.gitops / ("allowed_signers" if harm == "signers" else "champions/evil.json")
        path.write_text("{}")
    found = verify_home(home.settings)
    assert not found.ok
    assert str(path) in found.reason
    tick(home)  # does not put it right unseen
    assert not verify_home(home.settings).ok


def test_a_champion_that_no_tick_wrote_yet_is_no_fault_and_the_next_tick_writes_it(home: Home) -> None:
    adopted(home)
    tick(home)
    adopted(home, "v2", "rollout.full")
    assert verify_home(home.settings).ok
    tick(home)
    assert document(home)["version"] == "v2"


def test_a_tick_of_the_fleet_publishes_what_anybody_did(home: Home) -> None:
    adopted(home)
    with opened(home.settings, home.clock) as at:
        Fleet(at, {}).tick(inline=False)
    assert (home.settings.gitops / "champions" / "fraud.json").is_file()
    assert whole(home)


def test_status_and_verify_tell_how_far_it_is_behind(home: Home) -> None:
    adopted(home)
    place = ("--home", home.settings.home)
    assert "nothing is committed" in drift("audit", "verify", *place).out
    tick(home, git="/nowhere/git")
    told = standing(home.store, MODEL, None, home.clock.now()).concerns["gitops"]
    assert (
        told
        == "2 events not committed since 2026-03-02 12:00 UTC: /nowhere/git cannot be run: No such file or directory"
    )
    home.clock.advance_to(AT + HOUR)
    tick(home)
    assert "gitops" not in standing(home.store, MODEL, None, home.clock.now()).concerns
    adopted(home, "v2", "rollout.full")
    later = home.clock.now() + HOUR
    assert "1 events not committed since 2026-03-02 13:00 UTC: no tick came by since" in behind(home.store, later)


def test_a_slow_git_holds_a_tick_no_longer_than_its_deadline_and_a_rollback_not_at_all(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "git"
    program.write_text('#!/bin/sh\n[ "$1" = push ] && sleep 60\nexec git "$@"\n')
    program.chmod(0o755)
    monkeypatch.setattr(repository, "PUSH_S", 0.5)
    began = time.monotonic()
    tick(home, git=str(program))
    assert time.monotonic() - began < 10
    assert "git push did not end within" in behind(home.store, home.clock.now())
    with repository.alone(home.settings, 0) as held:
        assert held is not None
        adopted(home, "v1", "rollout.rolled_back")
        tick(home)  # somebody else is at it
        assert len(history(home)) == 1
    home.clock.advance_to(AT + HOUR)
    tick(home)
    assert whole(home)
    assert head(home.settings.gitops_bare) == head(home.settings.gitops)


def test_what_a_killed_writer_left_beside_a_champions_file_is_no_fault(home: Home) -> None:
    adopted(home)
    tick(home)
    (home.settings.gitops / "champions" / ".fraud.json.0123.partial").write_text("{")
    assert verify_home(home.settings).ok


KILLING = """#!/bin/sh
count=$(cat {count} 2>/dev/null || echo 0); count=$((count + 1)); echo $count > {count}
if [ $count -eq {at} ] && [ {when} = before ]; then kill -9 $PPID; exit 1; fi
git "$@"; code=$?
if [ $count -eq {at} ]; then kill -9 $PPID; fi
exit $code
"""
CHILD = """
import sys
from pathlib import Path
from datetime import datetime
from drift_pipeline.clock import ManualClock
from drift_pipeline.control.trust import open_store
from drift_pipeline.evidence.gitops.publishing import publish
from drift_pipeline.settings import Settings
settings = Settings(home=Path(sys.argv[1]), database="", git=sys.argv[2])
clock = ManualClock(datetime.fromisoformat(sys.argv[3]))
publish(settings, open_store(settings, clock), clock)
"""


def in_a_process(home: Home, program: str) -> int:
    command = [sys.executable, "-c", CHILD, str(home.settings.home), program, home.clock.now().isoformat()]
    return subprocess.run(command, check=False, capture_output=True).returncode


@pytest.mark.slow
@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_at_any_call_of_git_it_goes_on_where_it_was(home: Home, tmp_path: Path, when: str) -> None:
    program, survived = tmp_path / "killing", 0
    for at in range(1, 30):
        adopted(home, f"v{at}", "rollout.full")
        count = tmp_path / f"count{at}"
        program.write_text(KILLING.format(count=count, at=at, when=when))
        program.chmod(0o755)
        code = in_a_process(home, str(program))
        home.clock.advance_to(home.clock.now() + 2 * HOUR)
        tick(home)
        assert whole(home)
        assert document(home)["version"] == f"v{at}"
        assert head(home.settings.gitops_bare) == head(home.settings.gitops)
        assert verify_home(home.settings).ok
        survived += code == 0
        if survived == 2:
            break
    assert at > 7, "no call was left out"
    assert len(history(home)) == len({told for _, _, told in history(home)})


def test_killed_between_the_commit_and_its_note_it_commits_nothing_twice(home: Home) -> None:
    tick(home)
    row = home.store.recall("_gitops")
    assert row is not None
    adopted(home)
    tick(home)
    before, told = head(home.settings.gitops), home.store.recall("_gitops")
    assert told is not None
    home.store.remember(Put("", "_gitops", row.body, told.generation))
    tick(home)
    assert head(home.settings.gitops) == before
    assert read(home.store)[0].pushed == before


def test_several_at_once_make_one_history(home: Home) -> None:
    def at_it(_: int) -> None:
        with closing(open_store(home.settings, ManualClock(home.clock.now()))) as store:
            publish(home.settings, store, home.clock)

    for turn in range(3):
        adopted(home, f"v{turn}", "rollout.full")
        home.clock.advance_to(home.clock.now() + HOUR)
        with ThreadPoolExecutor(4) as pool:
            assert [*pool.map(at_it, range(8))] == [None] * 8
    assert len(history(home)) == 3
    assert whole(home)


@pytest.mark.slow
def test_several_processes_at_once_make_one_history(home: Home) -> None:
    command = [sys.executable, "-c", CHILD, str(home.settings.home), "git"]
    adopted(home)
    children = [subprocess.Popen([*command, home.clock.now().isoformat()]) for _ in range(3)]
    assert [child.wait() for child in children] == [0, 0, 0]
    assert len(history(home)) == 1
    assert whole(home)


def test_more_events_than_one_commit_takes_are_several_commits(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repository, "MOST", 2)
    for turn in range(4):
        adopted(home, f"v{turn}", "rollout.full")
    tick(home)
    assert whole(home)
    assert document(home)["version"] == "v3"


def test_a_pipe_in_the_folder_holds_nothing_up(home: Home) -> None:
    (home.settings.gitops / "specs").mkdir(parents=True)
    os.mkfifo(home.settings.gitops / "specs" / f"{'0' * 64}.json")
    os.mkfifo(home.settings.gitops / "checkpoints" / "000000000000.dsse.json")
    tick(home)
    assert behind(home.store, AT + HOUR) == ""


def test_another_store_takes_up_where_the_last_process_was(home: Home) -> None:
    tick(home)
    with closing(open_store(home.settings, ManualClock(AT))) as store:
        publish(home.settings.model_copy(update={"git": "/nowhere/git"}), store, home.clock)
    assert behind(home.store, AT) == ""
