"""Genres, titles, texts and file names that a terminal, a spreadsheet, Markdown or HTML would obey."""

import csv
import io
import json
import re
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
from made_runs import made_predictions, make_run
from markdown_it import MarkdownIt
from matplotlib import font_manager

from genre_lightning.__main__ import main
from genre_lightning.errors import ConfigError, one_line
from genre_lightning.escapes import (
    cell,
    join_names,
    json_line,
    markdown,
    markdown_code,
    markdown_table,
    original_cell,
    split_names,
    visible,
)
from genre_lightning.evaluation.console import SafeConsole, print_headlines
from genre_lightning.evaluation.decisions import fit_decision, read_decision
from genre_lightning.evaluation.figure_fonts import drawable
from genre_lightning.evaluation.plots.figures import write_figures
from genre_lightning.evaluation.plots.style import styled
from genre_lightning.evaluation.runs import Run
from genre_lightning.evaluation.scored import ScoredSplit
from genre_lightning.export.card import Exported, model_card
from genre_lightning.export.source import Source
from genre_lightning.files import read_json
from genre_lightning.models.metadata import CheckpointMetadata
from genre_lightning.progress import say, task_progress
from genre_lightning.runs import RunDirectory

ESCAPES = "\x1b[2J\x9b31m\x07\u202e\x00\x7f\u2066"
NAMES = (
    "=cmd|' /C calc'!A0", "+1", "-2", "@SUM(A1)", "\tTab", "\rReturn", "'=quoted", "''plain", "＝wide",
    "a|b", "back\\slash", "a\\|b", "line\nbreak", "[adult swim]", "[/b]", ":smile:", "$x$ $$",
    "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "[x](javascript:alert(1))", "![x](http://e.com/x.png)",
    "<http://e.com>",
    "http://e.com", "`code`", "**bold** _it_ ~~s~~", "&lt;b&gt;", "動画", "סרט", ESCAPES, "\ud800",
)  # fmt: skip
GENRES = tuple(sorted(name for name in NAMES if name != "\ud800"))


def obeyed(text):
    """The characters of a text that a terminal would obey, line breaks aside."""
    return [c for c in text if (ord(c) < 32 and c != "\n") or 127 <= ord(c) < 160 or c in "\u202e\u2066"]


def test_controls_become_escapes():
    assert visible("a\x1b[31m\n\u202e") == "a\\x1b[31m\\n\\u202e"
    assert visible("a\nb\x9b", keep="\n") == "a\nb\\x9b"
    assert visible("caf\u00e9 \u05e1\u05e8\u05d8 \u200f\U0001f3ac") == "caf\u00e9 \u05e1\u05e8\u05d8 \u200f\U0001f3ac"
    assert one_line(f"a\n b\t{ESCAPES}") == "a b \\x1b[2J\\x9b31m\\x07\\u202e\\x00\\x7f\\u2066"


@pytest.mark.parametrize("name", NAMES)
def test_json_is_safe_and_says_the_same(name):
    line = json_line({"genre": name})
    assert not obeyed(line)
    assert json.loads(line) == {"genre": name}
    assert json.loads(json_line(name, ascii_only=True).encode("ascii")) == name


@pytest.mark.parametrize("name", NAMES)
def test_no_cell_is_a_formula_and_reading_gives_the_text(name):
    assert cell(name)[0] not in "=+-@\t\r\n＝"
    assert original_cell(cell(name)) == name


def test_names_joined_in_a_cell_can_be_taken_apart():
    for names in ([], ["a"], list(NAMES), ["|", "\\", "\\|"], ["a\\", "b"]):
        assert split_names(original_cell(cell(join_names(names)))) == names
    assert join_names(["Science Fiction", "War"]) == "Science Fiction|War"


@pytest.mark.parametrize("name", NAMES)
def test_markdown_shows_text_as_it_is(name):
    shown = visible(" ".join(name.split()))
    table = MarkdownIt("commonmark").enable("table").render(markdown_table(["genre", "n"], [[markdown(name), "1"]]))
    assert table.count("<td") == 2
    for page in (table, MarkdownIt("commonmark").render(f"{markdown(name)} and {markdown_code(name)}")):
        assert not any(f"<{tag}" in page for tag in ("a ", "img", "script", "strong", "em", "s>"))
    html = MarkdownIt("commonmark").render(f"x {markdown(name)}")
    plain = html.removeprefix("<p>x ").removesuffix("</p>\n")
    for mark, entity in (("<", "&lt;"), (">", "&gt;"), ('"', "&quot;"), ("&", "&amp;")):
        plain = plain.replace(entity, mark)
    assert plain == shown


def test_markdown_tables_align_words_left_and_numbers_right():
    rows = [["base", "unknown", "1e-05"], ["data", "-", "0.58 [0.42, 0.72]"]]
    table = markdown_table(["of", "licence", "size"], rows)
    columns = re.findall(r"<td(.*?)>", MarkdownIt("commonmark").enable("table").render(table))
    assert columns == ["", "", ' style="text-align:right"'] * 2


@pytest.fixture
def console():
    file = io.StringIO()
    return SafeConsole(file, width=200), file


def test_tables_obey_neither_markup_nor_controls(console, tmp_path):
    from rich.table import Table
    from rich.text import Text

    screen, file = console
    table = Table(title="[b]" + ESCAPES)
    table.add_column("genre")
    for name in NAMES:
        table.add_row(name)
        table.add_row(Text(name))
    screen.print(table)
    screen.print(f"{ESCAPES} [/b]")
    shown = file.getvalue()
    assert not obeyed(shown)
    for part in ("[adult swim]", "[/b]", ":smile:", "\\x1b[2J", "[b]\\x1b"):
        assert part in shown


def test_news_and_errors_obey_nothing(capfd, tmp_path, monkeypatch):
    monkeypatch.setattr("genre_lightning.progress._WORTH_A_LINE", 0.0)
    say(f"tagging {ESCAPES}\nforged line")
    with task_progress(ESCAPES, 1) as progress:
        progress(1)
    assert main([ESCAPES]) == 2
    assert main(["tag", str(tmp_path / ESCAPES.replace("\0", "")), "x"]) == 2
    assert main(["explain", str(tmp_path), "--html", f"x{ESCAPES}"]) == 2
    err = capfd.readouterr().err
    assert not obeyed(err)
    assert len(err.splitlines()) == 5


@pytest.fixture(scope="module")
def film_file(tmp_path_factory):
    """Films whose every cell is hostile; their genres can be learnt."""
    place = tmp_path_factory.mktemp("films") / "films.csv"
    numbers = np.random.default_rng(0)
    genres = [name for name in GENRES if "\0" not in name]
    with place.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "title", "overview", "genres"])
        for film in range(240):
            chosen = numbers.choice(len(genres), 2, replace=False)
            cells = json.dumps([{"id": int(g), "name": genres[g]} for g in chosen])
            words = " ".join(f"word{g} plot{g}" for g in chosen)
            writer.writerow([film, NAMES[film % 9], f"{words} {film} \x1b[2J of a film", cells])
    return place


@pytest.fixture(scope="module")
def run(film_file):
    place = film_file.parent / "run"
    assert main(["baseline", "tfidf_nb", f"--data.csv={film_file}", f"--run_dir={place}"]) == 0
    return place


@pytest.mark.parametrize("command", [["tag"], ["tag", "--json"], ["explain"], ["explain", "--json"]])
def test_texts_and_genres_are_printed_safely(run, command, capfd):
    capfd.readouterr()
    assert main([*command, str(run), "--top_k", "25", f"word1 plot1 word2 {ESCAPES[:5]} film"]) == 0
    shown = capfd.readouterr()
    assert not obeyed(shown.out.replace("\t", ""))
    assert not obeyed(shown.err)
    assert "[adult swim]" in shown.out
    if "--json" not in command:
        assert "\\x1b[2J" in shown.out


def test_top_words_and_report_are_printed_safely(run, capfd):
    assert main(["explain", str(run), "--top_words", "--films", "40", "--split", "test"]) == 0
    shown = capfd.readouterr()
    assert not obeyed(shown.out + shown.err)
    assert "[adult swim]" in shown.out
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "<script>" not in page
    assert "<img src=x" not in page
    assert "<bdi>סרט</bdi>" in page
    print_headlines(read_json(run / "evaluation" / "test" / "metrics.json"), None)
    assert not obeyed(capfd.readouterr().out)


@pytest.mark.parametrize("raw", [False, True])
def test_a_table_holds_no_formula_unless_asked_for(run, film_file, tmp_path, raw):
    out = tmp_path / "t.csv"
    words = ["predict", str(run), "--data.csv", str(film_file), "--out", str(out)]
    assert main([*words, *["--raw_cells"] * raw]) == 0
    with out.open(newline="", encoding="utf-8") as file:
        header, *rows = list(csv.reader(file))
    vocabulary = list(read_decision(run / "decision.json").genres)
    assert {"=cmd|' /C calc'!A0", "+1", "-2", "'=quoted", "a\\|b", "line\nbreak"} <= set(vocabulary)
    titles = [NAMES[film % 9].strip() for film in range(240)]
    back = str if raw else original_cell
    assert [back(name) for name in header[4:]] == vocabulary
    assert [back(row[1]) for row in rows] == titles
    for row in rows:
        assert set(split_names(back(row[2]))) <= set(vocabulary)
    starts = {text[:1] for row in [header, *rows] for text in row[:3]} | {name[:1] for name in header}
    assert bool(starts & set("=+-@\t\r")) == raw


def test_stored_tables_hold_no_formula_and_are_read_back(run):
    for name in ("per_genre.csv", "confusion.csv"):
        with (run / "evaluation" / "test" / name).open(newline="", encoding="utf-8") as file:
            stored = [row["genre"] for row in csv.DictReader(file)]
        assert not {name[0] for name in stored if name} & set("=+-@\t\r")
        assert {original_cell(name) for name in stored} >= {"=cmd|' /C calc'!A0", "'=quoted", "a|b", "line\nbreak"}
    rows = Run(run).genre_rows("test")
    assert {row["genre"] for row in rows} >= {"=cmd|' /C calc'!A0", "'=quoted"}


def test_the_card_shows_names_as_they_are(run, tmp_path, monkeypatch):
    monkeypatch.setattr("genre_lightning.export.card._licence", lambda base: "[mit](javascript:alert(1))")
    directory = RunDirectory(run)
    hostile = "x\n```\n<script>alert(1)</script>"
    model = SimpleNamespace(options=SimpleNamespace(pooling="mean"))
    values = {"backbone": {"name": f"{hostile}/|base"}, "max_tokens": 48, "backbone_config": {"model_type": "<b>"}}
    unread = {"genres": [], "pos_weight": [], "vocab_size": 60, "pad_token_id": 0, "epoch_sums": []}
    metadata = CheckpointMetadata.from_json({**values, **unread})
    source = Source(directory, model, read_decision(directory.decision), metadata, None, "{overview}`<b>")
    card = model_card(source, Exported("transformers", f'"{hostile}'))
    body = card.split("---\n", 2)[2]
    page = MarkdownIt("commonmark").enable("table").render(body)
    for tag in ("<script", "<img", "<a ", "<b>"):
        assert tag not in page
    assert "](javascript:" not in body
    assert "<td>[adult swim]</td>" in page
    table = page.split("Each genre</h2>")[1].split("</table>")[0]
    assert {row.count("<td") for row in table.split("<tr>")[2:]} == {7}
    code = body.split("```python")[1].split("```")[0]
    compile(code, "card", "exec")
    assert "alert" not in {line for line in code.splitlines() if not line.startswith("folder = ")}


def test_compare_escapes_names_of_runs(tmp_path, capfd):
    names = ["=1+1", "a|b [bold] \x1b[2J"]
    for seed, name in enumerate(names):
        make_run(tmp_path / name, seed=seed)
    assert main(["compare", *(str(tmp_path / name) for name in names), "--out", str(tmp_path / "out")]) == 0
    shown = capfd.readouterr()
    assert not obeyed(shown.out + shown.err)
    with (tmp_path / "out" / "comparison.csv").open(newline="", encoding="utf-8") as file:
        stored = [row["run"] for row in csv.DictReader(file)]
    assert "'=1+1" in stored
    page = MarkdownIt("commonmark").enable("table").render((tmp_path / "out" / "comparison.md").read_text())
    assert {row.count("<td") for row in page.split("<tr>")[2:]} == {11}


# plots


def test_plots_of_any_script_are_drawn_without_a_warning(tmp_path):
    genres = tuple(sorted(["動画", "สยองขวัญ", "$x$", "[/b]\n\x1b[31m", "סרט", "a" * 200]))
    predictions = made_predictions(80, 1.0, genres=genres)
    decision = fit_decision(predictions, "validation", resamples=5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(write_figures(tmp_path, ScoredSplit(predictions, decision))) == 7


def test_a_font_that_has_the_characters_is_added():
    import matplotlib as mpl

    usual = set(map(chr, font_manager.get_font(font_manager.findfont("DejaVu Sans")).get_charmap()))
    stix = set(map(chr, font_manager.get_font(font_manager.findfont("STIXGeneral")).get_charmap()))
    only = next(c for c in sorted(stix - usual) if c > "\u1d00")
    with drawable(["Drama", f"{only}x"]) as shown:
        assert shown == ("Drama", f"{only}x")
        families = styled(lambda: mpl.rcParams["font.family"])()  # where plots are drawn
        assert families[-1] in {font.name for font in font_manager.fontManager.ttflist}
        assert mpl.rcParams["font.family"][-1] in {font.name for font in font_manager.fontManager.ttflist}
        assert len(mpl.rcParams["font.family"]) == 2
    with drawable(["\U000e0041x"]) as shown:
        assert shown == ("\\U000e0041x",)
    with drawable(["Drama"]):
        assert len(mpl.rcParams["font.family"]) == 1


# directions


def test_pages_isolate_directions(run, tmp_path):
    page = tmp_path / "p.html"
    assert main(["explain", str(run), "סרט word1 plot1 טוב", "--html", str(page)]) == 0
    text = page.read_text(encoding="utf-8")
    assert '<p class="words" dir="auto">' in text
    assert "<bdi>סרט</bdi>" in text  # a genre
    assert "<bdi>[adult swim]" not in text


def test_a_configuration_error_is_one_line():
    assert one_line(ConfigError("x\n\x1b]0;title\x07")) == "x \\x1b]0;title\\x07"
