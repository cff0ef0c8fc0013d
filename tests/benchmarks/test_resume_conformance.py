"""What the benchmark of resuming counts, on journals that are written by hand, and a cut run of this framework."""

import json
import sys
from pathlib import Path

import pytest
import torch

PLACE = Path(__file__).parents[2] / "benchmarks" / "resume"
sys.path.insert(0, str(PLACE))

import compare  # noqa: E402
import present  # noqa: E402
from compare import Seen, Step  # noqa: E402


def line(step, films, *, epoch=0, rank=0):
    return {"event": "step", "rank": rank, "step": step, "epoch": epoch, "films": films}


def test_steps_have_the_films_of_all_ranks():
    journal = [{"event": "start", "rank": 0}, line(1, [3]), line(1, [0], rank=1), line(2, [2])]
    assert compare.steps_of(journal) == [Step(1, 0, (0, 3)), Step(2, 0, (2,))]


def test_steps_done_again_count_once():
    cut = [Step(1, 0, (0,)), Step(2, 0, (1,)), Step(3, 0, (2,))]
    again = [Step(2, 0, (1,)), Step(3, 0, (2,))]
    assert compare.resumed_after(cut, again) == 1
    assert compare.counted(cut, again) == cut
    assert compare.counted(cut, []) == cut


def test_films_seen_twice_and_never():
    steps = [Step(1, 0, (0, 1)), Step(2, 0, (1, 2)), Step(3, 1, (0, 1)), Step(4, 1, (2, 3))]
    assert compare.films_seen(steps, 4, 2) == Seen(1, 1, 1, 1)
    assert compare.films_seen(steps[2:], 4, 2) == Seen(0, 4, 0, 4)


def test_order_after_resume():
    unbroken = [Step(1, 0, (0, 1)), Step(2, 0, (2, 3))]
    assert compare.steps_in_order([Step(2, 0, (2, 3))], unbroken) == 1
    assert compare.steps_in_order([Step(1, 0, (2, 3)), Step(3, 0, (0, 1))], unbroken) == 0


def test_weights_differ_by_the_largest_entry():
    a, b = {"w": torch.zeros(2)}, {"w": torch.tensor([0.5, -2.0])}
    assert compare.largest_difference(a, a) == 0
    assert compare.largest_difference(a, b) == 2
    with pytest.raises(ValueError, match="'v'"):
        compare.largest_difference(a, {"v": torch.zeros(2)})


def test_gaps_and_doubles_are_counted_beside_the_unbroken_curve():
    assert compare.gaps_and_doubles([1, 2, 2, 4, 4], [1, 2, 3, 4, 4]) == (1, 1)
    assert compare.gaps_and_doubles([1, 2], [1, 2]) == (0, 0)


def row(**changes):
    return {
        "tool": "ours", "moment": "between steps", "signal": "SIGTERM", "ranks": 1, "resumed_ranks": 1,
        "statuses": [75], "hung": False, "resumed_statuses": [0], "finished": True,
        "steps_lost": 0, "twice": 0, "never": 0,
        "twice_in_worst_epoch": 0, "never_in_worst_epoch": 0, "steps_after": 45, "steps_in_order": 45,
        "largest_difference": 0.0, "unbroken_difference": 0.0, "gaps": 0, "doubles": 0, "cpu_seconds_to_resume": 0.5,
    } | changes  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, present.AS_UNBROKEN),
        ({"largest_difference": 1e-9}, present.WEIGHTS),
        ({"largest_difference": 1e-9, "resumed_ranks": 2}, present.AS_UNBROKEN),
        ({"largest_difference": 1e-3, "resumed_ranks": 2}, present.WEIGHTS),
        ({"largest_difference": 1e-3, "resumed_ranks": 2, "unbroken_difference": 2e-3}, present.AS_UNBROKEN),
        ({"never": 1}, present.FILMS),
        ({"twice": 1}, present.FILMS),
        ({"finished": False}, present.FAILED),
    ],
)
def test_verdict(changes, expected):
    assert present.verdict(row(**changes)) == expected


def test_results_have_a_line_for_each_tool_and_cut(tmp_path):
    failed = {"tool": "other", "finished": False, "why": "no such file", "statuses": [-9], "resumed_statuses": [1]}
    rows = [row(), row(signal="SIGKILL", steps_lost=5), {**row(signal="SIGKILL"), **failed}]
    rows.append(row(tool="third", statuses=[-9], hung=True))
    machine = {"cores": 2, "processor": "a processor", "python": "3.11"}
    versions = {"ours": {"torch": "2.13.0"}}
    present.write_results({"cells": rows, "date": "2026-11-28", "machine": machine, "versions": versions}, tmp_path)
    text = (tmp_path / "resume_conformance.md").read_text()
    assert "| ours | 2 of 2 | 0, 0 | 90 of 90 | 0 | 0, 5 | 0, 0 | 75 | 0.50 |" in text
    assert "| other | 0 of 1 | – |" in text
    assert "| 0, – | 0, 0 | hangs | 0.50 |" in text
    assert "does not resume: no such file" in text
    assert (tmp_path / "resume_conformance.png").is_file()


def test_committed_results_hold_what_is_claimed_of_this_framework():
    cells = json.loads((PLACE.parent / "results" / "resume_conformance.json").read_text())["cells"]
    mine = [cell for cell in cells if cell["tool"] == "genre_lightning"]
    assert len(mine) == len({(c["moment"], c["signal"], c["ranks"], c["resumed_ranks"]) for c in cells})
    for cell in mine:
        assert present.verdict(cell) == present.AS_UNBROKEN, cell
        assert cell["largest_difference"] <= (0 if cell["ranks"] == cell["resumed_ranks"] else 1e-4), cell
        assert cell["gaps"] == cell["doubles"] == 0, cell
        assert cell["steps_lost"] == 0 or cell["signal"] == "SIGKILL", cell
        assert cell["steps_in_order"] == cell["steps_after"], cell
