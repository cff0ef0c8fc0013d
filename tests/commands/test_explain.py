"""`explain` as its user runs it: for a terminal, a pipe, a program and a browser; and the top words of a split."""

import io
import json
from html.parser import HTMLParser

import numpy as np
import pytest
from made_runs import everything_under, make_run, refused, trained_baseline
from rich.console import Console

from genre_lightning.__main__ import main
from genre_lightning.evaluation.predictions import read_stored_predictions
from genre_lightning.explain.console import print_explanation
from genre_lightning.explain.explainer import Explainer
from genre_lightning.models.tfidf import read_baseline

TEXT = "Two soldiers fall in love with the same nurse in a war."
EVIL = '<script>alert(1)</script> soldiers "><img src=x> & {{ 7 * 7 }} [red]war[/red]'


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return trained_baseline(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def explainer(run):
    return Explainer(run)


def test_a_pipe_gets_words_and_sums_without_colours(run, explainer, capfd):
    assert main(["explain", str(run), "--top_k", "2", TEXT]) == 0
    out = capfd.readouterr().out
    assert "\x1b" not in out
    assert out.count(TEXT) == 2
    expected = explainer(TEXT, top_k=2)
    lines = out.splitlines()
    for genre in expected.genres:
        place = next(number for number, line in enumerate(lines) if line.startswith(f"{genre.genre}  "))
        assert lines[place + 1] == f"  {TEXT}"
        word, value = genre.strongest(expected.words, 1)[0]
        assert lines[place + 2].startswith(f"  for      {word} {value:+.2f}")
    assert "completeness error 0.0000 (0.00%), exact" in out
    assert "compared with an empty text" in out


def printed(explanation, **options):
    console = Console(file=io.StringIO(), width=100, force_terminal=True, **options)
    print_explanation(explanation, console)
    return console.file.getvalue()


def test_a_terminal_shows_for_in_green_and_against_in_red(explainer):
    explanation = explainer(TEXT, top_k=1)
    [genre] = explanation.genres
    shown = printed(explanation, color_system="standard")
    names, values = explanation.words.names, genre.values
    best, worst = names[int(np.argmax(values))], names[int(np.argmin(values))]
    assert f"\x1b[1;7;32m{best}\x1b[0m" in shown
    assert any(f"\x1b[{weight}31m{worst}\x1b[0m" in shown for weight in ("", "1;", "1;7;")) == (
        values.min() <= -0.1 * np.abs(values).max()
    )
    # NO_COLOR leaves weight alone, as https://no-color.org asks
    assert "32m" not in printed(explanation, color_system="standard", no_color=True)


def test_markup_of_a_text_is_text(explainer):
    assert EVIL in printed(explainer(EVIL, top_k=1), color_system=None).replace("\x1b[1;7m", "").replace("\x1b[0m", "")


def test_json_holds_every_word(run, explainer, capfd):
    assert main(["explain", str(run), "--json", TEXT, ""]) == 0
    lines = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert lines == [json.loads(json.dumps(explainer(text).as_dict())) for text in (TEXT, "")]
    assert lines[1]["notes"] == ["the text is empty"]
    for genre in lines[0]["explanations"]:
        assert sum(word["log_odds"] for word in genre["words"]) == pytest.approx(genre["attribution_sum"])
        assert [TEXT[word["start"] : word["end"]] for word in genre["words"]] == [w["word"] for w in genre["words"]]


class Page(HTMLParser):
    """Collects tags with their attributes, and the text of each paragraph of words."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.words, self.depth = [], [], 0
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag == "p":
            self.depth = dict(attributes).get("class") == "words"
            if self.depth:
                self.words.append("")

    def handle_endtag(self, tag):
        if tag == "p":
            self.depth = False

    def handle_data(self, data):
        if self.depth:
            self.words[-1] += data


def test_the_page_is_self_contained_and_escaped(run, explainer, tmp_path, capfd):
    file = tmp_path / "new" / "page.html"
    assert main(["explain", str(run), "--top_k", "2", "--html", str(file), EVIL, TEXT]) == 0
    assert f"written to {file}" in capfd.readouterr().err
    page = Page(file.read_text())
    assert page.words == [EVIL, EVIL, TEXT, TEXT]
    assert not {"script", "img", "link", "iframe"} & {tag for tag, _ in page.tags}
    assert not any({"src", "href", "onerror"} & attributes.keys() for _, attributes in page.tags)
    assert any("default-src 'none'" in str(attributes.get("content")) for _, attributes in page.tags)
    titled = [attributes for tag, attributes in page.tags if tag == "span" and "title" in attributes]
    genres = [genre for text in (EVIL, TEXT) for genre in explainer(text, top_k=2).genres]
    shown = [
        value for genre in genres for value, s in zip(genre.values, genre.strengths, strict=True) if abs(s) >= 0.03
    ]
    assert [attributes["title"] for attributes in titled] == [f"{value:+.3f}" for value in shown]
    assert [attributes["class"] for attributes in titled] == ["for" if value > 0 else "against" for value in shown]


def test_top_words_are_the_means_over_the_films_and_stand_in_the_report(run, capfd):
    assert main(["explain", str(run), "--top_words", "--films", "1000", "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    place = run / "evaluation" / "validation" / "top_words.json"
    assert json.loads(place.read_text()) == found
    stored = read_stored_predictions(run / "evaluation" / "validation" / "predictions.parquet")
    assert found["films"] == len(stored.predictions)
    assert [row["films"] for row in found["genres"]] == stored.decided.sum(axis=0).tolist()
    # one word of one genre, from the model's own weights
    model = read_baseline(run / "model.safetensors")
    column, row = max(enumerate(found["genres"]), key=lambda pair: len(pair[1]["words"]))
    word = row["words"][0]
    scale = 1 / json.loads((run / "decision.json").read_text())["temperature"]
    if json.loads((run / "decision.json").read_text())["platt"]:
        scale = json.loads((run / "decision.json").read_text())["platt"]["scale"][row["genre"]]
    sums = []
    for film in np.flatnonzero(stored.decided[:, column]):
        text = stored.predictions.texts[film]
        places, _, values = model.contributions(text)
        hits = [text[start:].casefold().startswith(word["word"]) for start in places]
        if any(hits):
            sums.append(scale * values[hits, column].sum())
    assert word["films"] == len(sums) >= found["fewest_films_of_a_word"]
    assert word["log_odds"] == pytest.approx(np.mean(sums), rel=1e-5)
    assert f"{word['word']} {word['log_odds']:+.2f}" in (run / "report.html").read_text()
    # the same films are drawn again, and the table shows them
    for _ in range(2):
        assert main(["explain", str(run), "--top_words", "--split", "test", "--films", "10"]) == 0
        out, err = capfd.readouterr()
        assert "in 10 films" in out
        assert "completeness error 0.00%" in err
    first = (run / "evaluation" / "test" / "top_words.json").read_bytes()
    assert main(["explain", str(run), "--top_words", "--split", "test", "--films", "10"]) == 0
    assert (run / "evaluation" / "test" / "top_words.json").read_bytes() == first


def test_the_report_leaves_out_words_of_another_checkpoint(run, capfd):
    for split in ("validation", "test"):
        place = run / "evaluation" / split / "top_words.json"
        if not place.is_file():
            assert main(["explain", str(run), "--top_words", "--split", split, "--films", "10"]) == 0
    assert "Words that add most to each genre" in (run / "report.html").read_text()
    for split in ("validation", "test"):
        place = run / "evaluation" / split / "top_words.json"
        place.write_text(place.read_text().replace('"checkpoint_sha256": "', '"checkpoint_sha256": "0'))
    assert main(["report", str(run)]) == 0
    assert "Words that add most to each genre" not in (run / "report.html").read_text()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "there is no text"),
        (["--steps", "1", "x"], "--steps: 1 is not allowed"),
        (["--top_k", "0", "x"], "--top_k: 0 is not allowed"),
        (["--threshold", "7", "x"], "--threshold: 7 is not allowed"),
        (["--html", ".", "x"], "is a directory"),
        (["--films", "5", "x"], "--films is of --top_words"),
        (["--top_words", "x"], "leave out a TEXT"),
        (["--top_words", "--html", "a.html"], "leave out --html"),
        (["--top_words", "--split", "train"], "choose validation or test"),
        (["--top_words", "--films", "0"], "--films: 0 is not allowed"),
        (["--steps", "4", "x"], "leave out --steps"),
        (["--device", "x", "--policy"], "--policy"),
    ],
)
def test_bad_use_is_one_line(run, capfd, words, expected):
    before = everything_under(run)
    refused(capfd, ["explain", run, *words], expected)
    assert everything_under(run) == before


def test_directories_that_cannot_be_explained(tmp_path, capfd):
    refused(capfd, ["explain", tmp_path, "x"], "is not a run directory")
    refused(capfd, ["explain"], "RUN")
    refused(capfd, ["explain", make_run(tmp_path / "half", status="training"), "x"], "has not finished training")
    bare = make_run(tmp_path / "bare", splits=("validation",))
    refused(capfd, ["explain", bare, "--top_words", "--split", "test"], "no evaluation on test", "genre-lightning test")
