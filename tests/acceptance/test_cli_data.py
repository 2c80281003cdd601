"""Stories of data on the command line: inputs and outputs of tokens, what they share, and how results come home."""

from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path

import pytest
from cli_tools import call, ids, ok, use


@pytest.fixture(autouse=True)
def pool(sqlite_url: str) -> str:
    return use(sqlite_url)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A folder that all machines see."""
    folder = tmp_path / "store"
    folder.mkdir()
    (folder / "reads.fq").write_text("ACGT\n")
    (folder / "a b.txt").write_text("blank\n")
    (folder / "ref.fa.gz").write_bytes(gzip.compress(b">chr1\n"))
    return folder


def token(*words: object) -> dict[str, object]:
    """Return the token that a push would make."""
    return json.loads(ok("push", "--dry-run", *words, "--", "true").out)


# --- what is written into tokens -----------------------------------------------------------------------------------------


def test_inputs_are_named_as_pytq_names_them():
    # Given a list in one option, a second option, an action behind a URL, a shared one, and a run of ENA
    made = token(
        "-i", "s3://b/a b.fq s3://b/c.fq.gz|gunzip", "-i", "run+fastq/SRR1/", "-r", "db=https://host/db.tar?v=1|untar"
    )  # fmt: skip
    # Then each is an input with its own fields
    assert made["inputs"] == [
        {"url": "s3://b/a b.fq"},
        {"url": "s3://b/c.fq.gz", "unpack": "gunzip"},
        {"url": "run+fastq://SRR1"},
        {"url": "https://host/db.tar?v=1", "path": "db", "unpack": "untar", "shared": True},
    ]


def test_outputs_go_to_one_folder_or_part_by_part():
    made = token("-o", "s3://b/all", "-o", "logs/*=s3://b/logs/", "--attach", "r.json", "--output-always", "--reuse")
    assert made["outputs"] == [
        {"url": "s3://b/all/", "when": "always"},
        {"url": "s3://b/logs/", "path": "logs/*", "when": "always"},
        {"path": "r.json", "when": "always"},
    ]
    assert made["reuse"] is True


def test_columns_of_a_table_name_data_too():
    Path("t.csv").write_text(
        "command,inputs,shared_inputs,outputs,reuse\n"
        "one,s3://b/x,/data/ref.gz|gunzip,r.txt=s3://b/out.txt,yes\n"
        'two,"[{""url"": ""s3://b/y"", ""path"": ""z""}]",,,\n'
    )
    one, two = (json.loads(line) for line in ok("push", "t.csv", "--dry-run", "-i", "/data/all").out.splitlines())
    # What the options name is for all tokens, before each one's own
    shared = {"url": "/data/ref.gz", "unpack": "gunzip", "shared": True}
    assert one["inputs"] == [{"url": "/data/all"}, {"url": "s3://b/x"}, shared]
    assert one["outputs"] == [{"url": "s3://b/out.txt", "path": "r.txt"}]
    assert one["reuse"] is True
    assert two["inputs"] == [{"url": "/data/all"}, {"url": "s3://b/y", "path": "z"}]
    assert "outputs" not in two


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["-i", "data.csv"], "'data.csv' is no URL"),
        (["-i", ""], "an empty URL was given"),
        (["-i", "s4://b/x"], "unknown storage 's4'"),
        (["-i", "htp://h/x"], "unknown storage 'htp'"),
        (["-i", "s3://b/x|gunzp"], "|gunzp behind s3://b/x is unknown"),
        (["-i", "https://ann:open-sesame@h/x"], "https://h/x holds a password"),
        (["-i", "../x=s3://b/x"], "the path '../x' of an input leads nowhere"),
        (["-r", "[1]"], "is no list of objects"),
        (["-o", "s3://b/x", "-o", "s3://b/y"], "two places were named for all outputs"),
        (["-o", "s3://b/x|gunzip"], "--output s3://b/x|gunzip would unpack a result"),
        (["-o", "sftp://ann:open-sesame@h/x"], "sftp://h/x holds a password"),
        (["--output-always"], "--output-always says when outputs are taken, and there is none"),
        (["--attach", "../x"], "the path '../x' of an output leads nowhere"),
    ],
)
def test_what_makes_no_sense_is_told_and_nothing_is_pushed(words, error):
    answer = call("push", *words, "--", "true")
    assert answer.code == 2
    assert error in answer.error
    assert "open-sesame" not in answer.err
    assert ids("all") == []


def test_a_column_that_makes_no_sense_is_told_with_its_place():
    Path("t.csv").write_text("command,inputs\none,s3://b/x\ntwo,nothing\n")
    answer = call("push", "t.csv")
    assert "t.csv: token 2: inputs: 'nothing' is no URL" in answer.error


# --- there and back ------------------------------------------------------------------------------------------------------


def work(*more: object) -> None:
    ok("work", "--quit", "--slots", "2", "--cache", "cache", *more)


def test_a_token_finds_its_data_and_its_results_come_home(store):
    # Given a token with an input, a shared one that is unpacked, and two kinds of output
    line = "cat $INPUT/reads.fq $RESOURCE/ref.fa > $OUTPUT/out.txt; mkdir $OUTPUT/sub; echo 7 > $OUTPUT/sub/n.json"
    data = ["-i", f"{store}/reads.fq", "-r", f"{store}/ref.fa.gz|gunzip", "-o", f"out.txt={store}/results/"]
    name = ok("push", *data, "--attach", "sub/*.json", "--", line).out.strip()
    # When it ran
    work()
    # Then its results are where they belong, and the token lists them
    assert (store / "results" / "out.txt").read_text() == "ACGT\n>chr1\n"
    shown = ok("show", name).out
    assert f"output file    out.txt (11 B) in {store}/results/out.txt" in shown
    assert "output file    sub/n.json (2 B)" in shown
    # And come home, with its logs, into a folder of its own
    told = ok("fetch", "all", "home").err
    assert "fetched into home" in told
    home = Path("home", name)
    assert (home / "out.txt").read_text() == "ACGT\n>chr1\n"
    assert (home / "sub" / "n.json").read_text() == "7\n"
    assert (home / f"logs_{name}.out").exists()


def test_what_is_here_already_is_not_fetched_again(store):
    push_results(store, 3)
    assert ok("fetch", "all", "home", "--json", "--no-logs").json["fetched"] == 3
    names = sorted(Path("home").glob("*/*.txt"))
    # Given one that is damaged at the same size, and one that is gone
    names[0].write_text("x" * names[0].stat().st_size)
    names[1].unlink()
    # When it is called again, then those two come
    told = ok("fetch", "all", "home", "--json", "--no-logs").json
    assert (told["fetched"], told["present"], told["failed"]) == (2, 1, [])
    assert all(path.read_text().startswith("result ") for path in names)


def push_results(store: Path, count: int, name: str = "r$NAME.txt") -> list[str]:
    """Run tokens that each leave one file in the store; return their ids."""
    for number in range(count):
        line = f"echo result {number} > $OUTPUT/{name.replace('$NAME', str(number))}"
        ok("push", "-o", f"{store}/results/{number}/", "--id", f"t{number}", "--", line)
    work()
    return ids("state:done")


def test_what_cannot_be_had_is_told_and_the_rest_comes(store):
    push_results(store, 3)
    (store / "results" / "1" / "r1.txt").unlink()
    answer = call("fetch", "all", "home", "--no-logs")
    assert answer.code == 4
    assert "not fetched: r1.txt of t1: " in answer.err
    assert "error: 1 file could not be had" in answer.err
    assert sorted(path.name for path in Path("home").glob("*/*")) == ["r0.txt", "r2.txt"]


def test_a_dry_run_tells_what_would_come(store):
    push_results(store, 2)
    answer = ok("fetch", "all", "home", "--no-logs", "--dry-run")
    assert "home/t0/r0.txt" in answer.out
    assert "2 files, 18 B; nothing was fetched" in answer.err
    assert not Path("home").exists()
    assert len(ok("fetch", "all", "home", "--no-logs", "--dry-run", "--json").json["files"]) == 2


def test_flat_puts_all_into_one_folder_and_tells_of_names_that_meet(store):
    push_results(store, 2, name="same.txt")
    answer = call("fetch", "all", "home", "--flat", "--no-logs")
    assert answer.code == 2
    assert "has a file of that name too" in answer.err
    assert [path.name for path in Path("home").iterdir()] == ["same.txt"]


def test_names_that_lead_out_of_the_folder_are_refused(store, sqlite_url):
    # Given a token of somebody who wants to write elsewhere on the machine of whoever fetches
    import tokenpool

    content = (store / "reads.fq").read_bytes()
    files = [
        {"path": path, "url": f"{store}/reads.fq", "size": 5, "sha256": hashlib.sha256(content).hexdigest()}
        for path in ("../../evil", "/tmp/evil", "good")
    ]
    with tokenpool.connect(sqlite_url) as pool:
        pool.push([{"_id": "bad", "input": "x"}])
        (claimed,) = pool.claim(1)
        pool.close(claimed, output={"files": files})
    # When it is fetched, then what is good comes, the rest is told
    answer = call("fetch", "all", "deep/home", "--no-logs")
    assert answer.code == 2
    assert answer.err.count("not fetched: ") == 2
    assert [str(path) for path in Path().rglob("*evil*")] == []
    assert Path("deep/home/bad/good").read_bytes() == content


def test_wrong_words_of_fetch_are_told():
    Path("file").write_text("")
    assert "file is a file" in call("fetch", "all", "file").error
    answer = call("fetch", "nobody", "home")
    assert answer.code == 4
    assert "there is no token 'nobody'" in answer.error
    assert ok("fetch", "all", "home").err == "these tokens have no files\n"


# --- the cache -----------------------------------------------------------------------------------------------------------


def test_the_cache_is_shown_and_cleared(store):
    # Given two shared files that tokens used
    for name in ("reads.fq", "ref.fa.gz"):
        ok("push", "-r", f"{store}/{name}", "--", f"test -s $RESOURCE/{name}")
    work()
    # Then both are kept, and one is removed by the beginning of its key
    listed = ok("cache", "ls", "--cache", "cache", "--json").json
    assert sorted(each["url"] for each in listed["entries"]) == [f"{store}/reads.fq", f"{store}/ref.fa.gz"]
    assert listed["size"] == sum(each["size"] for each in listed["entries"]) > 0
    key = listed["entries"][0]["key"]
    assert "removed 1 entry" in ok("cache", "rm", key[:10], "--cache", "cache").err
    assert ok("cache", "ls", "-q", "--cache", "cache").out.split() == [listed["entries"][1]["key"]]
    assert f"{store}/" in ok("cache", "ls", "--cache", "cache").out
    # And pruning to nothing removes the other
    assert "removed 1 entry" in ok("cache", "prune", "--limit", "0", "--cache", "cache").err
    assert ok("cache", "ls", "--cache", "cache", "--json").json["entries"] == []


@pytest.mark.parametrize(
    ("words", "code", "error"),
    [
        (["rm"], 2, "no key was given"),
        (["rm", "a", "--all"], 2, "keys and --all cannot both be given"),
        (["rm", "f00"], 4, "the cache has no key 'f00'"),
        (["prune", "--limit", "5x"], 2, "--limit '5x' is no size"),
    ],
)
def test_wrong_words_of_cache_are_told(words, code, error):
    answer = call("cache", *words, "--cache", "cache")
    assert answer.code == code
    assert error in answer.error


# --- settings ------------------------------------------------------------------------------------------------------------


def test_options_of_storages_are_tables_and_their_secrets_are_not_shown(sqlite_url):
    Path("tokenpool.toml").write_text(
        f'pool = "{sqlite_url}"\n[storage."s3://b/"]\nendpoint_url = "http://h:9"\nkey = "secret:S3_KEY"\n'
        'secret = "open-sesame"\nclient_kwargs = {region_name = "eu", aws_session_token = "open-sesame"}\n'
    )
    listed = ok("config", "list", "--json").json
    shown = {name: each["value"] for name, each in listed.items() if name.startswith("storage.")}
    assert shown['storage."s3://b/".endpoint_url'] == "http://h:9"
    assert shown['storage."s3://b/".key'] == "secret:S3_KEY"
    assert shown['storage."s3://b/".secret'] == "***"
    assert "open-sesame" not in ok("config", "list").out + json.dumps(listed)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("storage = 3", "storage = 3 is no table"),
        ('[storage."bucket"]\nkey = "x"', "storage 'bucket' is no beginning of URLs"),
        ('[storage]\n"s3://b/" = 1', "storage 's3://b/' is no table of options"),
        ('cache_limit = "much"', "cache_limit = 'much'"),
        ("transfers = 0", "transfers = 0"),
        ("scratch_limit = 101", "scratch_limit = 101"),
    ],
)
def test_settings_of_data_that_make_no_sense_are_told(text, error):
    Path("tokenpool.toml").write_text(text + "\n")
    answer = call("config", "list")
    assert answer.code == 2
    assert error in answer.error


def test_options_of_storages_are_not_set_one_by_one():
    assert "the options of storages are not set one by one" in call("config", "set", "storage.s3", "x").error
