"""SLURM's commands, each called by an argument list, and the batch script that they are given."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from genre_lightning.errors import ConfigError, one_line

SCRIPTS = Path(str(resources.files("genre_lightning"))) / "slurm"
"""The batch scripts that come with the package; its env.sh is for a site to edit."""

TEMPLATE = SCRIPTS / "train.sbatch"

_PLACE = "# -- what `genre-lightning submit` fills in stands here --\n"
_DIRECTIVE = re.compile(r"#SBATCH --(?P<name>[a-z][a-z-]*)(=(?P<value>.*))?")
_SECONDS = 30.0
"""How long a command of SLURM may take; a controller that is down lets them wait."""


def render(
    template: str, directives: Mapping[str, str | None], settings: Mapping[str, str], tasks: Sequence[Sequence[str]]
) -> str:
    """Fill in the batch script.

    Args:
        template: Text of train.sbatch.
        directives: sbatch's options by their long names, without dashes. An empty text is an option without a value,
            None takes the template's own away.
        settings: Variables of the script, set in the places that the template has for them.
        tasks: Arguments of the command, for each task of an array; a single one is for a job without an array.

    Raises:
        ConfigError: A value that no directive can hold.
    """
    open_ones = dict(directives)
    lines: list[str] = []
    last = 0
    for line in template.splitlines():
        found = _DIRECTIVE.fullmatch(line)
        name = found["name"] if found else None
        if name in open_ones:
            value = open_ones.pop(name)
            if value is None:
                continue
            line = directive(name, value)
        lines.append(line)
        if found:
            last = len(lines)
    # sbatch reads no option below the first command
    lines[last:last] = [directive(name, value) for name, value in open_ones.items() if value is not None]
    filled = [f"{name}={shlex.quote(value)}" for name, value in settings.items()]
    if len(tasks) == 1:
        filled.append(f"set -- {shlex.join(tasks[0])}")
    else:
        cases = [f"  {number}) set -- {shlex.join(words)} ;;" for number, words in enumerate(tasks)]
        filled += ["case $SLURM_ARRAY_TASK_ID in", *cases, "esac"]
    return "\n".join([*lines, ""]).replace(_PLACE, "\n".join([*filled, ""]))


def directive(name: str, value: str) -> str:
    """Return one line of sbatch's options.

    Raises:
        ConfigError: A name or a value that no line can hold.
    """
    if not re.fullmatch(r"[a-z][a-z0-9-]*", name):
        raise ConfigError(f"--sbatch {name}: give the long name of an option of sbatch, such as --sbatch qos=high")
    if "\n" in value:
        raise ConfigError(f"--sbatch {name}: the value has a line break: give it on one line")
    if not value:
        return f"#SBATCH --{name}"
    plain = re.fullmatch(r"[\w@%+,.:/=()\[\]-]+", value)
    quoted = value if plain else '"' + re.sub(r'(["\\])', r"\\\1", value) + '"'
    return f"#SBATCH --{name}={quoted}"


def check_limit(script: str) -> None:
    """Refuse a time limit that comes with its own signal: such a job would save and be queued again after one step.

    Args:
        script: Rendered.

    Raises:
        ConfigError: The limit has its own signal; the message names the fix.
    """
    found = re.findall(r"^#SBATCH --(time|signal)=(.+)$", script, flags=re.MULTILINE)
    given = {name: value.strip('"') for name, value in found}
    if given.get("signal", "").startswith("B:"):
        raise ConfigError(
            f"--sbatch signal={given['signal']} is for the batch script alone: leave out B:, so that ranks get it"
        )
    lead = re.search(r"@(\d+)", given.get("signal", ""))
    seconds = limit_seconds(given["time"])
    # SLURM looks every half a minute, and gives the signal too early rather than too late
    if lead and seconds is not None and seconds <= int(lead[1]) + 30:
        raise ConfigError(
            f"--time {given['time']} leaves no time before the signal, {lead[1]} seconds before the limit: "
            "give more time, or a later signal such as --sbatch signal=USR1@60"
        )


def limit_seconds(text: str) -> float | None:
    """Return a time limit as sbatch takes it, "90", "8:00:00" or "1-12", in seconds; None for none, as "0" asks for.

    Raises:
        ConfigError: It is not a time.
    """
    if text.lower() in ("infinite", "unlimited"):
        return None
    found = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", text)
    if not found:
        raise ConfigError(f"--time {text} is not a time limit: give minutes, hours:minutes:seconds or days-hours")
    days, first, second, third = (None if part is None else int(part) for part in found.groups())
    hours_first = days is not None or third is not None
    units = (3600, 60, 1) if hours_first else (60, 1, 0)
    parts = zip((first, second, third), units, strict=True)
    return (days or 0) * 86400 + sum((part or 0) * unit for part, unit in parts) or None


def file_name(path: Path) -> str:
    """Return a path as sbatch's --output takes it, which reads a percent sign as the beginning of a pattern."""
    return str(path).replace("%", "%%")


def submit(script: Path) -> str:
    """Pass a batch script to sbatch and return the job's id.

    Raises:
        ConfigError: There is no sbatch, or it refuses the script.
    """
    require_sbatch()
    done = _call(["sbatch", "--parsable", str(script)])
    if done is None or done.returncode != 0:
        said = one_line(done.stderr) if done else "no answer"
        raise ConfigError(f"sbatch refuses the job ({said[:400]}): change the options, or see {script}")
    return done.stdout.strip().split(";")[0]


def require_sbatch() -> None:
    """Refuse a machine that cannot submit.

    Raises:
        ConfigError: The machine has no sbatch; the message names the fix.
    """
    if shutil.which("sbatch") is None:
        raise ConfigError(
            "there is no sbatch on this machine: submit from a login node of the cluster, "
            "or see the batch script with --dry-run"
        )


@dataclass(frozen=True)
class JobState:
    """State of a job in SLURM.

    Attributes:
        state: State of the job, such as "RUNNING", "PENDING", "COMPLETED", "FAILED".
        nodes: Nodes on which it runs.
        reason: Why it waits; None if it does not.
        left: Time to its limit, as "8:00:00" or "1-02:00:00"; None if it does not run.
    """

    state: str
    nodes: str | None = None
    reason: str | None = None
    left: str | None = None


def job_state(job: str) -> JobState | None:
    """Ask SLURM for a job's state: squeue, or sacct for older ones; None if neither knows it."""
    # a separator that no node list or reason holds
    done = _call(["squeue", f"--jobs={job}", "--states=all", "--noheader", "--format=%T\t%N\t%r\t%L"])
    if done and done.returncode == 0 and done.stdout.strip():
        state, nodes, reason, left = (done.stdout.splitlines()[0].split("\t") + [""] * 3)[:4]
        running = state == "RUNNING"
        return JobState(
            state, nodes or None, reason if state == "PENDING" else None, left if running and left else None
        )
    done = _call(["sacct", f"--jobs={job}", "--allocations", "--noheader", "--parsable2", "--format=State"])
    if done and done.returncode == 0 and done.stdout.strip():
        return JobState(done.stdout.split()[0])
    return None


def _call(command: list[str]) -> subprocess.CompletedProcess[str] | None:
    if shutil.which(command[0]) is None:
        return None
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return None
