"""From a word to a workflow: GitHub's short names, git URLs, archives, packed files."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from cwl_tools import Remotes

from tokenpool.cwl.checkouts import bring
from tokenpool.cwl.sources import Source, choose, is_source, parse
from tokenpool.errors import BadInput, NotFound, ServerAway

HUB = "https://github.com"


@pytest.mark.parametrize(
    ("word", "repo", "ref", "path"),
    [
        ("ctb/salmon", "ctb/salmon", "", ""),
        ("ctb/salmon:master", "ctb/salmon", "master", ""),
        ("ctb/salmon:feature/x", "ctb/salmon", "feature/x", ""),
        ("ctb/salmon:v1/tools/x.cwl", "ctb/salmon", "v1", "tools/x.cwl"),
        ("ctb/salmon:v1/tools/x.cwl#main", "ctb/salmon", "v1", "tools/x.cwl#main"),
        ("ctb/salmon/tools/x.cwl", "ctb/salmon", "", "tools/x.cwl"),
        ("ctb/salmon/tools/x.cwl:feature/x", "ctb/salmon", "feature/x", "tools/x.cwl"),
    ],
)
def test_short_names_mean_repositories_on_github(word: str, repo: str, ref: str, path: str) -> None:
    assert parse(word) == Source(repo=f"{HUB}/{repo}", ref=ref, path=path)
    assert is_source(word)


def test_urls_and_files_are_told_apart(tmp_path: Path) -> None:
    # Given a tool here
    Path("tool.cwl").write_text("class: CommandLineTool")
    # Then each word means what it looks like
    assert parse("tool.cwl#main") == Source(local="tool.cwl", path="#main")
    assert parse("https://host/a/tool.cwl#main") == Source(url="https://host/a/tool.cwl#main")
    assert parse("https://host/a/x.zip/in/tool.cwl") == Source(url="https://host/a/x.zip", path="in/tool.cwl")
    assert parse("https://host/a/r.git:v1/tool.cwl") == Source(repo="https://host/a/r.git", ref="v1", path="tool.cwl")
    # And what is neither is refused
    for wrong in ("there-is-no.cwl", ".", "./ctb/x.cwl", "x"):
        with pytest.raises((NotFound, BadInput)):
            parse(wrong)
    for wrong in ("ctb/salmon:", "ctb/salmon:-u", "ctb/salmon:a b", "ctb/salmon:a..b"):
        with pytest.raises(BadInput, match="no branch"):
            parse(wrong)


def test_the_file_that_is_meant_without_a_name(tmp_path: Path) -> None:
    # Given a folder with one workflow at its top, and one below
    (tmp_path / "sub").mkdir()
    (tmp_path / "one.cwl").touch()
    (tmp_path / "sub" / "deep.cwl").touch()
    # Then the one at the top is meant
    assert choose(tmp_path, "", "it") == "one.cwl"
    assert choose(tmp_path, "sub", "it") == "sub/deep.cwl"
    # With another one beside it, nobody can say, and the choices are listed
    (tmp_path / "two.cwl").touch()
    with pytest.raises(BadInput, match=r"one\.cwl, two\.cwl"):
        choose(tmp_path, "", "it")
    # But Dockstore.cwl goes before all
    (tmp_path / "Dockstore.cwl").touch()
    assert choose(tmp_path, "", "it") == "Dockstore.cwl"
    # And nothing outside is ever meant
    for wrong in ("../x.cwl", "/etc/passwd"):
        with pytest.raises(BadInput, match="leaves"):
            choose(tmp_path, wrong, "it")
    with pytest.raises(NotFound) as missing:
        choose(tmp_path, "three.cwl", "it")
    assert "sub/deep.cwl" in missing.value.hint


def test_branches_tags_and_commits_over_file_and_http(remotes: Remotes, over_http: str, tmp_path: Path) -> None:
    # Given a repository with a tag, another branch, and a commit that neither names
    remote = remotes.make("me/flow", {"Dockstore.cwl": "first"})
    first = remote.git("rev-parse", "HEAD")
    remote.git("tag", "v1")
    second = remote.commit({"Dockstore.cwl": "second"})
    remote.git("checkout", "--quiet", "-b", "feature/x")
    third = remote.commit({"Dockstore.cwl": "third"})
    remote.git("checkout", "--quiet", "main")
    remote.git("update-server-info")
    last = remote.commit({"Dockstore.cwl": "last"})
    # When each is asked for, from a folder and from a plain web server
    number = 0
    for base in (remotes.file_url, f"{over_http}"):
        tail = "/.git" if base == over_http else ""
        for ref, commit, text in (
            ("", last, "last"),
            ("v1", first, "first"),
            ("feature/x", third, "third"),
            (second, second, "second"),
        ):
            number += 1
            folder = tmp_path / str(number)
            found = bring(Source(repo=f"{base}/me/flow{tail}", ref=ref), folder)
            # Then it is there, and its commit is known
            assert (found.commit, found.path) == (commit, "Dockstore.cwl")
            assert (folder / "Dockstore.cwl").read_text() == text


def test_what_is_not_there_is_told_apart_from_what_is_away(remotes: Remotes, over_http: str, tmp_path: Path) -> None:
    # Given a repository
    remotes.make("me/flow", {"Dockstore.cwl": "x"})
    # Then a ref or a repository that does not exist never will, and the choices are told
    with pytest.raises(NotFound, match="nope") as missing:
        bring(Source(repo=f"{remotes.file_url}/me/flow", ref="nope"), tmp_path / "1")
    assert "main" in missing.value.hint
    for url in (f"{remotes.file_url}/me/nothing", f"{over_http}/me/nothing"):
        with pytest.raises(NotFound, match="cannot be cloned"):
            bring(Source(repo=url), tmp_path / url.replace("/", "_"))
    with pytest.raises(NotFound, match="404"):
        bring(Source(url=f"{over_http}/x.zip"), tmp_path / "3")
    # And a server that does not answer may do so later
    with pytest.raises(ServerAway):
        bring(Source(repo="http://127.0.0.1:9/me/flow"), tmp_path / "4")
    with pytest.raises(ServerAway):
        bring(Source(url="http://127.0.0.1:9/x.zip"), tmp_path / "5")


def test_an_archive_is_unpacked_and_nothing_of_it_leaves_its_folder(
    remotes: Remotes, over_http: str, tmp_path: Path
) -> None:
    # Given an archive on a web server, with an entry that wants to get out
    with zipfile.ZipFile(remotes.root / "flow.zip", "w") as archive:
        archive.writestr("in/Dockstore.cwl", "x")
        archive.writestr("../../outside.txt", "x")
    # When it is brought
    found = bring(parse(f"{over_http}/flow.zip/in"), tmp_path / "a" / "b")
    # Then it is inside
    assert found.path == "in/Dockstore.cwl"
    assert not (tmp_path / "outside.txt").exists()
    # And what is no archive says so
    (remotes.root / "no.zip").write_text("no")
    with pytest.raises(BadInput, match="cannot be unpacked"):
        bring(parse(f"{over_http}/no.zip"), tmp_path / "c")
