"""The batch script as it is filled in, and SLURM's commands as they are called: executables stand for them."""

import shlex
import subprocess
import sys

import pytest

from genre_lightning.distributed import batch
from genre_lightning.errors import ConfigError

TEMPLATE = batch.TEMPLATE.read_text()


def stand_in(folder, name, body):
    """An executable that keeps its arguments in NAME.args, one a line, and then does what the Python body says."""
    path = folder / name
    keep = f"pathlib.Path({str(folder / name)!r} + '.args').write_text('\\n'.join(sys.argv[1:]))"
    path.write_text(f"#!{sys.executable}\nimport pathlib, sys\n{keep}\n{body}\n")
    path.chmod(0o755)


@pytest.fixture
def commands(tmp_path, monkeypatch):
    """A folder that is all of PATH."""
    folder = tmp_path / "commands"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


def directives(script):
    """sbatch's options of a script, read as it does: above the first command, quotes taken away."""
    found = {}
    for line in script.splitlines():
        if line and not line.startswith("#"):
            break
        if line.startswith("#SBATCH --"):
            (word,) = shlex.split(line.removeprefix("#SBATCH --"))
            name, _, value = word.partition("=")
            found[name] = value
    return found


def test_options_take_the_place_of_the_templates():
    given = {"nodes": "4", "gpus-per-node": None, "qos": "high", "exclusive": "", "time": "1-00:00:00"}
    before, after = directives(TEMPLATE), directives(batch.render(TEMPLATE, given, {}, []))
    assert before["signal"] == "USR1@300"
    expected = {**before, "nodes": "4", "qos": "high", "exclusive": "", "time": "1-00:00:00"}
    del expected["gpus-per-node"]
    assert after == expected


@pytest.mark.parametrize("value", ["/a b/%j.log", 'say "so"', "a\\b", "it's", "#1", "größer"])
def test_values_keep_their_characters(value):
    assert directives(batch.render(TEMPLATE, {"output": value}, {}, []))["output"] == value


@pytest.mark.parametrize(("name", "value"), [("no desk", "1"), ("", ""), ("Nodes", "2"), ("comment", "a\nrm -rf b")])
def test_what_no_directive_can_hold_is_refused(name, value):
    with pytest.raises(ConfigError):
        batch.render(TEMPLATE, {name: value}, {}, [])


def test_arguments_and_settings_reach_the_shell_as_they_are():
    words = ["--run_dir", "/a b/it's $HOME", "--data.text", '"{title}" `x`\\']
    script = batch.render('#SBATCH --nodes=1\n# -- what `genre-lightning submit` fills in stands here --\n'
                          'printf "%s\\0" "$PLACE" "$@"\n', {}, {"PLACE": "/some where"}, [words])  # fmt: skip
    shown = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True).stdout
    assert shown.split("\0")[:-1] == ["/some where", *words]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 5400), ("1:30", 90), ("8:00:00", 28800), ("1-12", 129600), ("1-12:30", 131400),
        ("2-00:00:01", 172801), ("infinite", None),
    ],
)  # fmt: skip
def test_time_limits_are_sbatchs(text, seconds):
    assert batch.limit_seconds(text) == seconds


def test_a_limit_before_its_own_signal_is_refused():
    batch.check_limit(TEMPLATE)
    batch.check_limit(batch.render(TEMPLATE, {"time": "5", "signal": "USR1@60"}, {}, []))
    with pytest.raises(ConfigError, match="leaves no time before the signal, 300 seconds"):
        batch.check_limit(batch.render(TEMPLATE, {"time": "5"}, {}, []))
    with pytest.raises(ConfigError, match="is not a time limit"):
        batch.check_limit(batch.render(TEMPLATE, {"time": "soon"}, {}, []))


def test_a_log_path_with_a_percent_sign_is_not_a_pattern(tmp_path):
    assert batch.file_name(tmp_path / "50%j") == f"{tmp_path}/50%%j"


def test_a_script_is_submitted_by_an_argument_list(commands, tmp_path):
    stand_in(commands, "sbatch", "print('123;west')")
    script = tmp_path / "a run; echo" / "train.sbatch"
    assert batch.submit(script) == "123"
    assert (commands / "sbatch.args").read_text().splitlines() == ["--parsable", str(script)]


def test_what_sbatch_says_against_a_job_is_reported(commands, tmp_path):
    stand_in(commands, "sbatch", "sys.exit('sbatch: error: invalid partition\\nspecified: west')")
    with pytest.raises(ConfigError, match="invalid partition specified: west"):
        batch.submit(tmp_path / "train.sbatch")


def test_without_sbatch_there_is_a_cure(commands):
    with pytest.raises(ConfigError, match=r"there is no sbatch on this machine.*--dry-run"):
        batch.require_sbatch()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("RUNNING\\tn[1-2]\\tNone\\t1-02:00:00", batch.JobState("RUNNING", "n[1-2]", None, "1-02:00:00")),
        ("PENDING\\t\\tBeginTime\\t8:00:00", batch.JobState("PENDING", None, "BeginTime", None)),
        ("COMPLETED\\tn1\\tNone\\t0:10", batch.JobState("COMPLETED", "n1", None, None)),
    ],
)
def test_squeue_is_asked_first(commands, line, expected):
    stand_in(commands, "squeue", f"print('{line}')")
    assert batch.job_state("12_3") == expected
    assert "--jobs=12_3" in (commands / "squeue.args").read_text().splitlines()


def test_sacct_knows_jobs_that_squeue_has_forgotten(commands):
    assert batch.job_state("12") is None
    stand_in(commands, "squeue", "sys.exit('slurm_load_jobs error: Invalid job id specified')")
    assert batch.job_state("12") is None
    stand_in(commands, "sacct", "print('CANCELLED by 1000')")
    assert batch.job_state("12") == batch.JobState("CANCELLED")
