"""Where commands write: regular files and new folders only, each whole or not at all, whatever lies there already."""

import io
import os
import sys
from types import SimpleNamespace

import pytest
from made_runs import everything_under, make_run, refused, trained_baseline

from genre_lightning.__main__ import main
from genre_lightning.cache import default_cache_dir
from genre_lightning.errors import ConfigError, SaveError
from genre_lightning.explain.explainer import Explainer
from genre_lightning.export.folder import whole_folder
from genre_lightning.files import check_output, replacing
from genre_lightning.folders import check_new_folder, new_folder
from genre_lightning.inference.tagged_files import TaggedFile
from genre_lightning.runs import RunDirectory
from genre_lightning.training.fit import keep_tokenizer


class KilledError(BaseException):
    """Stands for whatever ends a process."""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return trained_baseline(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def films(run):
    return run.parent / "sample.csv"


@pytest.fixture(params=["link", "dangling link", "pipe", "directory"])
def taken(request, tmp_path):
    """A place at which no command may write, by any name."""

    def make(name):
        place = tmp_path / name
        if request.param == "pipe":
            os.mkfifo(place)
        elif request.param == "directory":
            place.mkdir()
        else:
            target = tmp_path / "elsewhere"
            if request.param == "link":
                target.write_text("precious")
            place.symlink_to(target)
        return place

    return make


def test_only_regular_files_are_replaced(run, films, taken, capfd):
    table, page, sample = taken("t.csv"), taken("p.html"), taken("s.csv")
    kinds = [place.lstat().st_mode for place in (table, page, sample)]
    refused(capfd, ["predict", run, "--data.csv", films, "--out", table], "--out", str(table), "regular file")
    refused(capfd, ["explain", run, "a text", "--html", page], "--html", str(page), "regular file")
    refused(capfd, ["data", "sample", sample, "--films", 100], str(sample), "regular file")
    with pytest.raises(ConfigError, match="regular file"), replacing(table):
        pass
    assert [place.lstat().st_mode for place in (table, page, sample)] == kinds
    if (table.parent / "elsewhere").exists():
        assert (table.parent / "elsewhere").read_text() == "precious"
    assert not [path for path in table.parent.iterdir() if path.name.startswith(".")]


def test_compare_writes_to_regular_files_only(tmp_path, taken, capfd):
    runs = [make_run(tmp_path / "runs" / "a"), make_run(tmp_path / "runs" / "b", seed=1)]
    taken("comparison.csv")
    refused(capfd, ["compare", *runs, "--out", tmp_path], "--out", "comparison.csv", "regular file")
    assert not (tmp_path / "comparison.md").exists()


def test_devices_and_places_below_files_are_refused(tmp_path):
    (tmp_path / "file").touch()
    for place, expected in (("/dev/full", "is a device"), (tmp_path / "file" / "x", "not a directory"),
                            ("/proc/x", "cannot be written"), ("a\0b", "cannot be written")):  # fmt: skip
        with pytest.raises(ConfigError, match=expected):
            check_output(place, "--out")


def test_a_place_that_may_not_be_written_is_refused_early(run, films, tmp_path, monkeypatch, capfd):
    def read_only(*arguments, **options):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("tempfile.TemporaryFile", read_only)
    before = everything_under(run)
    refused(capfd, ["predict", run, "--data.csv", films, "--out", tmp_path / "t.csv"], "Read-only file system")
    refused(capfd, ["explain", run, "x", "--html", tmp_path / "p.html"], "Read-only file system")
    refused(capfd, ["explain", run, "--top_words"], "Read-only file system")
    refused(capfd, ["export", run, tmp_path / "out"], "Read-only file system")
    assert everything_under(run) == before
    assert list(tmp_path.iterdir()) == []


def test_compare_leaves_its_own_folder_out(tmp_path, capfd):
    make_run(tmp_path / "a")
    make_run(tmp_path / "b", 0.5, seed=1)
    for _ in range(2):
        assert main(["compare", *map(str, sorted(tmp_path.iterdir()))]) == 0
    assert "comparison is left out" in capfd.readouterr().err


# folders


def test_two_processes_do_not_write_one_folder(tmp_path):
    target = tmp_path / "out"
    with new_folder(target) as draft:
        (draft / "file").write_text("first")
        with pytest.raises(ConfigError, match="another process is writing"), new_folder(target):
            pass
    assert (target / "file").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_the_first_of_two_that_began_together_wins(tmp_path, monkeypatch):
    monkeypatch.setattr("genre_lightning.folders._remove_left_drafts", lambda target: None)
    target = tmp_path / "out"

    def write_both():
        with new_folder(target) as second:
            (second / "file").write_text("second")
            with new_folder(target) as first:
                (first / "file").write_text("first")

    with pytest.raises(ConfigError, match="in the meantime"):
        write_both()
    assert (target / "file").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_only_drafts_of_killed_processes_are_removed(tmp_path):
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").touch()
    left = tmp_path / ".out.abcd_123.draft"
    left.mkdir(mode=0o700)
    (left / "weights").touch()
    for name in (".out.part", ".out.parts", ".other.abcd_123.draft"):
        (tmp_path / name).mkdir()
    (tmp_path / ".out.link_123.draft").symlink_to(precious)
    with new_folder(tmp_path / "out") as draft:
        (draft / "file").touch()
    found = sorted(path.name for path in tmp_path.iterdir())
    assert found == [".other.abcd_123.draft", ".out.link_123.draft", ".out.part", ".out.parts", "out", "precious"]
    assert (precious / "file").is_file()


def test_a_folder_that_fails_leaves_nothing(tmp_path):
    with pytest.raises(KilledError), new_folder(tmp_path / "out"):
        raise KilledError
    with pytest.raises(SaveError, match="No space left"), whole_folder(tmp_path / "out", 10):
        raise OSError(28, "No space left on device")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_for_whoever_may_read_the_rest(tmp_path):
    (tmp_path / "out").mkdir()  # an empty one is taken
    mask = os.umask(0o022)
    try:
        with new_folder(tmp_path / "out") as draft:
            (draft / "file").touch(mode=0o600)
            assert draft.stat().st_mode & 0o777 == 0o700
    finally:
        os.umask(mask)
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "out" / "file").stat().st_mode & 0o777 == 0o644


def test_an_export_does_not_follow_a_link(tmp_path):
    (tmp_path / "empty").mkdir()
    for name, target in (("live", "empty"), ("dangling", "nowhere")):
        (tmp_path / name).symlink_to(tmp_path / target)
        with pytest.raises(ConfigError, match="is a link"):
            check_new_folder(tmp_path / name, "the target")


def test_a_file_in_the_way_of_the_tokenizer_does_no_harm(tmp_path):
    for name in (".tokenizer.part", ".tokenizer.draft"):
        (tmp_path / name).write_text("mine")
    tokenizer = SimpleNamespace(save_pretrained=lambda folder: (folder / "tokenizer.json").write_text("{}"))
    keep_tokenizer(SimpleNamespace(run=RunDirectory(tmp_path)), SimpleNamespace(tokenizer=tokenizer))
    assert (tmp_path / "tokenizer" / "tokenizer.json").is_file()
    assert (tmp_path / ".tokenizer.part").read_text() == "mine"


# predict's parts


@pytest.fixture
def cut_off(run, films, tmp_path, monkeypatch):
    """The folder of parts of a start that was killed after its third part."""
    monkeypatch.setattr("genre_lightning.training.predict.CHUNK_ROWS", 40)
    write_part = TaggedFile.write_part

    def killed(self, number, rows, logits):
        if number == 3:
            raise KilledError
        write_part(self, number, rows, logits)

    with monkeypatch.context() as patch:
        patch.setattr(TaggedFile, "write_part", killed)
        with pytest.raises(KilledError):
            main(["predict", str(run), "--data.csv", str(films), "--out", str(tmp_path / "t.csv")])
    return tmp_path / ".t.csv.parts"


def predict(run, films, place, *more):
    return main(["predict", str(run), "--data.csv", str(films), "--out", str(place / "t.csv"), *more])


@pytest.fixture
def whole(run, films, tmp_path_factory):
    place = tmp_path_factory.mktemp("whole")
    assert predict(run, films, place) == 0
    return (place / "t.csv").read_bytes()


def test_own_parts_are_resumed_from(run, films, tmp_path, cut_off, whole, capfd):
    assert cut_off.stat().st_mode & 0o077 == 0
    assert predict(run, films, tmp_path) == 0
    assert "after 120 rows" in capfd.readouterr().err
    assert (tmp_path / "t.csv").read_bytes() == whole


def test_forged_parts_are_not_taken(run, films, tmp_path, cut_off, whole, capfd):
    first, second, third = sorted(cut_off.glob("part-*"))
    first.write_bytes(third.read_bytes())  # another part's content under its name
    second.rename(cut_off / second.name.replace("part-000001", "part-000007"))
    (cut_off / "part-000001-0123456789abcdef0123456789abcdef.parquet").write_bytes(third.read_bytes())
    assert predict(run, films, tmp_path) == 0
    assert "after" not in capfd.readouterr().err
    assert (tmp_path / "t.csv").read_bytes() == whole


def test_links_among_the_parts_are_not_followed(run, films, tmp_path, cut_off, whole, capfd):
    _, second, _ = sorted(cut_off.glob("part-*"))
    moved = tmp_path / "moved.parquet"
    second.rename(moved)
    second.symlink_to(moved)
    precious = tmp_path / "precious"
    precious.write_text("mine")
    (cut_off / ".tmp-x").symlink_to(precious)
    assert predict(run, films, tmp_path) == 0
    assert "after 40 rows" in capfd.readouterr().err
    assert (precious.read_text(), moved.is_file()) == ("mine", True)
    assert (tmp_path / "t.csv").read_bytes() == whole


def test_a_folder_of_parts_from_elsewhere_is_refused(run, films, tmp_path, cut_off, capfd):
    key = next(default_cache_dir().glob("user-*.key"))
    kept = key.read_bytes()
    forms = {
        "signed by another user": lambda: key.write_bytes(bytes(32)),
        "open to others": lambda: cut_off.chmod(0o777),
        "without a note": lambda: (cut_off / "identity.json").unlink(),
        "a note that is a link": lambda: (cut_off / "identity.json").symlink_to(tmp_path / "note"),
        "a link": lambda: (cut_off.rename(tmp_path / "away"), cut_off.symlink_to(tmp_path / "away")),
    }
    try:
        for name, change in forms.items():
            change()
            before = everything_under(tmp_path)
            assert predict(run, films, tmp_path) == 2, name
            assert "was not left by an earlier start" in capfd.readouterr().err.splitlines()[-1]
            assert everything_under(tmp_path) == before
            key.write_bytes(kept)
            cut_off.chmod(0o700)
    finally:
        key.write_bytes(kept)


def test_a_key_that_others_can_read_is_refused(run, films, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("GENRE_LIGHTNING_CACHE", str(tmp_path / "cache"))
    place = tmp_path / "out"
    place.mkdir()
    assert predict(run, films, place) == 0
    key = next((tmp_path / "cache").glob("user-*.key"))
    key.chmod(0o644)
    assert predict(run, films, place) == 2
    assert "delete it" in capfd.readouterr().err.splitlines()[-1]
    key.unlink()
    assert predict(run, films, place) == 0


def test_parts_of_another_version_are_not_resumed_from(run, films, tmp_path, cut_off, monkeypatch, capfd):
    monkeypatch.setattr("genre_lightning.training.predict.__version__", "another")
    assert predict(run, films, tmp_path) == 0
    assert "after" not in capfd.readouterr().err


def test_predict_names_its_films(run, tmp_path, capfd):
    refused(capfd, ["predict", run, "--out", tmp_path / "t.csv"], "--data.csv is missing")


# full disks, and outputs that take nothing


def full(*arguments, **options):
    raise OSError(28, "No space left on device")


def test_a_full_disk_is_one_line(run, films, tmp_path, monkeypatch, capfd):
    with monkeypatch.context() as patch:
        patch.setattr("genre_lightning.inference.tagged_files._text_of", full)
        assert predict(run, films, tmp_path) == 1
    assert "No space left" in capfd.readouterr().err.splitlines()[-1]
    monkeypatch.setattr("genre_lightning.explain.page.write_text", full)
    assert main(["explain", str(run), "a text", "--html", str(tmp_path / "p.html")]) == 1
    assert "No space left" in capfd.readouterr().err.splitlines()[-1]
    before = everything_under(run)
    monkeypatch.setattr("genre_lightning.commands.explain.write_json", full)
    assert main(["explain", str(run), "--top_words", "--films", "5"]) == 1
    assert "No space left" in capfd.readouterr().err.splitlines()[-1]
    assert everything_under(run) == before
    assert not (tmp_path / "t.csv").exists()
    assert not (tmp_path / "p.html").exists()


@pytest.mark.parametrize("command", [["tag"], ["tag", "--json"], ["explain"], ["explain", "--json"]])
def test_a_full_standard_output_is_one_line(run, command, monkeypatch, capfd):
    with open("/dev/full", "w", encoding="utf-8") as stream:  # noqa: PTH123
        monkeypatch.setattr(sys, "stdout", stream)
        assert main([*command, str(run), "a text"]) == 1
    err = capfd.readouterr().err.splitlines()
    assert len(err) == 1
    assert "standard output takes no more" in err[0]


@pytest.mark.parametrize("command", ["tag", "explain"])
def test_a_closed_stream_is_refused(run, command, monkeypatch, capfd):
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", None)
        assert main([command, str(run), "a text"]) == 2
    assert "standard output is closed" in capfd.readouterr().err
    monkeypatch.setattr(sys, "stdin", None)
    if command == "tag":
        refused(capfd, ["tag", run], "standard input is closed")


@pytest.mark.parametrize("command", [["tag"], ["tag", "--json"], ["explain"], ["explain", "--json"]])
def test_an_ascii_output_gets_escapes(run, command, monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    assert main([*command, str(run), "caf\u00e9 \u52d5\u753b"]) == 0
    assert "\\u52d5" in stream.buffer.getvalue().decode("ascii")


def test_steps_of_an_explanation_have_a_limit(run, capfd):
    refused(capfd, ["explain", run, "x", "--steps", 10**8], "--steps", "10,000")
    with pytest.raises(ConfigError, match="10,000"):
        Explainer(run, steps=10**8)


def test_tag_reads_long_lines_in_bounded_memory(tmp_path, monkeypatch):
    from genre_lightning.commands.tag import _lines_of_file
    from genre_lightning.inference.tagger import _windows

    monkeypatch.setattr("genre_lightning.commands.tag._LONGEST_LINE", 10)
    for encoding in ("utf-8", "utf-16"):
        (tmp_path / "texts").write_text("a" * 95 + "\r\nb\n" + "c" * 10 + "\nd", encoding=encoding)
        assert list(_lines_of_file(tmp_path / "texts")) == ["a" * 10, "b", "c" * 10, "d"]
    monkeypatch.setattr("genre_lightning.inference.tagger._WINDOW_CHARACTERS", 10)
    assert [len(window) for window in _windows(iter(["aaaa"] * 7))] == [3, 3, 1]


def test_curves_do_not_follow_a_link(tmp_path):
    from genre_lightning.training.loggers.curves import CurvesLogger

    precious = tmp_path / "precious"
    precious.write_text("mine")
    (tmp_path / ".curves.csv.part").symlink_to(precious)
    logger = CurvesLogger(tmp_path / "curves.csv")
    logger.log_metrics({"train/loss": 1.0}, step=0)
    logger.save()
    assert precious.read_text() == "mine"
