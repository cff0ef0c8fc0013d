"""Reading movies files: every row is kept or counted under the first reason that fits; every bad file is one line."""

import csv
import gzip
import json
import random
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genre_lightning.config.columns import ColumnNames, TextTemplate
from genre_lightning.data.films import FilmSource, load_films
from genre_lightning.data.movies import REASONS, Reading, check_columns, find_shapes, is_placeholder, read_movies
from genre_lightning.data.sample.generate import planted_counts
from genre_lightning.errors import ConfigError, DataError

DRAMA = "[{'id': 18, 'name': 'Drama'}]"
HEADER = ["id", "title", "overview", "genres"]
OVERVIEW = TextTemplate("{overview}")


def write(path, rows, header=HEADER, encoding="utf-8"):
    with path.open("w", newline="", encoding=encoding) as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
    return path


def read(path, columns=None, template=OVERVIEW, **options):
    reading = Reading(FilmSource(path, columns or ColumnNames(), template, **options))
    return list(read_movies(reading, find_shapes(reading.source))), reading.audit


def counts(**wanted):
    return {"rows": sum(wanted.values()), **dict.fromkeys([*REASONS, "kept"], 0), **wanted}


def test_every_reason(tmp_path):
    rows = [
        ["1", "One", "A man walks.", DRAMA],
        ["1997-08-20", "Shifted", "Released", "[{'name': 'Carousel', 'id': 1}]"],  # as in the real file
        ["", "No id", "A man runs.", DRAMA],
        ["3.5", "Half", "A man runs.", DRAMA],
        ["-4", "Negative", "A man runs.", DRAMA],
        ["9" * 19, "Too long", "A man runs.", DRAMA],
        ["5", "No list", "A man runs.", "Drama"],
        ["6", "Empty cell", "A man runs.", ""],
        ["1", "Again", "A man walks again.", DRAMA],
        ["7", "Blank", "  \n ", DRAMA],
        ["8", "Placeholder", "No overview found.", DRAMA],
        ["9", "No genres", "A man sits.", "[]"],
        ["10", "Kept", "A man stands.", DRAMA],
        *([str(number), "", f"A man {number} walks.", DRAMA] for number in range(100, 200)),
    ]
    films, audit = read(write(tmp_path / "a.csv", rows))
    assert audit.as_dict() == counts(
        malformed=6, duplicate_id=1, missing_overview=1, placeholder_overview=1, no_genres=2, kept=102
    )
    assert list(audit.as_dict()) == ["rows", *REASONS, "kept"]
    assert [film.id for film in films] == [1, 10, *range(100, 200)]
    assert films[0].genres == ("Drama",)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (["", "", "", "[]"], "malformed"),  # all five fit
        (["1", "", "", "[]"], "duplicate_id"),
        (["2", "", "", "[]"], "missing_overview"),
        (["2", "", "n/a", "[]"], "placeholder_overview"),
        (["2", "", "A man.", "[]"], "no_genres"),
    ],
)
def test_the_first_reason_that_fits_counts(tmp_path, row, reason):
    _, audit = read(write(tmp_path / "a.csv", [["1", "", "A man walks.", DRAMA], row]))
    assert audit.as_dict() == counts(kept=1, **{reason: 1})


def test_the_first_of_two_rows_stays_even_if_it_is_dropped(tmp_path):
    rows = [["1", "", "", DRAMA], ["1", "", "A man walks.", DRAMA]]
    assert read(write(tmp_path / "a.csv", rows))[1].as_dict() == counts(missing_overview=1, duplicate_id=1)


def test_a_row_that_is_cut_short_is_malformed(tmp_path):
    rows = [["1", "", "A man walks."], [], ["2"], ["3", "", "A man.", DRAMA, "more", "cells"]]
    # the line without anything is not a row; cells without a column are cells of another
    assert read(write(tmp_path / "a.csv", rows))[1].as_dict() == counts(malformed=3)
    rows = [["1", "", "A man walks.", DRAMA, "", " "]]
    assert read(write(tmp_path / "a.csv", rows))[1].as_dict() == counts(kept=1)


CELLS = st.tuples(
    st.sampled_from(["1", "2", "3", "4", "5", "", "x", "2001-01-01"]),
    st.just("T"),
    st.sampled_from(["", " ", "n/a", "Released", "A man walks.", 'A woman runs, then "stops".\nTwice.']),
    st.sampled_from([DRAMA, "[]", "", "Drama", "[{'id': 1, 'name': 'War'}]"]),
)


@settings(deadline=None, derandomize=True, max_examples=100)
@given(rows=st.lists(CELLS, max_size=25))
def test_reasons_and_kept_add_up_to_rows(tmp_path_factory, rows):
    films, audit = read(write(tmp_path_factory.mktemp("h") / "a.csv", rows))
    facts = audit.as_dict()
    assert facts["rows"] == len(rows) == sum(facts[name] for name in (*REASONS, "kept"))
    assert facts["kept"] == len(films) == len({film.id for film in films})
    assert all(film.genres and film.overview and film.text for film in films)


def test_the_sample_has_what_was_planted(sample_csv):
    films, audit = read(sample_csv)
    planted = planted_counts(films=300, seed=0)
    assert audit.as_dict() == {"rows": sum(planted.values()), **planted}
    assert len(films) == 300


@pytest.mark.real_data
def test_the_real_file(movies_csv):
    _, audit = read(movies_csv)
    assert audit.as_dict() == {
        "rows": 21245,
        "malformed": 3,
        "duplicate_id": 21,
        "missing_overview": 81,
        "placeholder_overview": 55,
        "no_genres": 323,
        "kept": 20762,
    }


FILMS = [(1, "One", "A man walks.", ["Drama", "War"]), (2, "Deux", "Une femme – «rit».", ["War"])]


def entries(names):
    return [{"id": number, "name": name} for number, name in enumerate(names)]


@pytest.mark.parametrize("form", ["literal", "json", "names", "comma", "pipe", "gz", "bom", "upper", "crlf"])
def test_csv_forms(tmp_path, form):
    shown = {
        "json": lambda names: json.dumps(entries(names)),
        "names": json.dumps,
        "comma": ", ".join,
        "pipe": "|".join,
    }.get(form, lambda names: repr(entries(names)))
    rows = [[number, title, overview, shown(names)] for number, title, overview, names in FILMS]
    path = write(
        tmp_path / ("A.CSV" if form == "upper" else "a.csv"), rows, encoding="utf-8-sig" if form == "bom" else "utf-8"
    )
    if form == "gz":
        packed = tmp_path / "a.csv.gz"
        packed.write_bytes(gzip.compress(path.read_bytes()))
        path = packed
    if form == "crlf":
        path.write_bytes(path.read_bytes().replace(b"\r\n", b"\n"))
    films, audit = read(path)
    assert audit.as_dict() == counts(kept=2)
    assert [(f.id, f.title, f.overview, list(f.genres)) for f in films] == FILMS


@pytest.mark.parametrize("form", ["strings", "structs", "literal", "separated", "float ids"])
def test_parquet_forms(tmp_path, form):
    genres = [names for *_, names in FILMS]
    column = {
        "structs": [entries(names) for names in genres],
        "literal": [repr(entries(names)) for names in genres],
        "separated": ["|".join(names) for names in genres],
    }.get(form, genres)
    ids = [float(f[0]) if form == "float ids" else f[0] for f in FILMS]
    table = pa.table({"id": ids, "title": [f[1] for f in FILMS], "overview": [f[2] for f in FILMS], "genres": column})
    pq.write_table(table, tmp_path / "a.parquet")
    films, audit = read(tmp_path / "a.parquet")
    assert audit.as_dict() == counts(kept=2)
    assert [(f.id, f.title, f.overview, list(f.genres)) for f in films] == FILMS


def test_parquet_rows_are_audited_too(tmp_path):
    # as in a CSV, a few numbers that can be no id are malformed, and with more of them the ids are text
    table = pa.table(
        {
            "id": pa.array([1, 2, 3, None, -5, 2**62, *range(100, 200)], pa.int64()),
            "overview": ["A man.", None, "A man.", "A man.", "A man.", "A man.", *["A man."] * 100],
            "genres": [["War"], ["War"], None, ["War"], ["War"], ["War"], *[["War"]] * 100],
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet")[1].as_dict() == counts(malformed=3, missing_overview=1, no_genres=1, kept=101)


def test_numbers_are_names_in_a_file_of_numbers_only(tmp_path):
    table = {"id": [1, 2], "overview": ["A man.", "A dog."], "genres": [[18, 35], [18]]}
    pq.write_table(pa.table(table), tmp_path / "a.parquet")
    assert [film.genres for film in read(tmp_path / "a.parquet")[0]] == [("18", "35"), ("18",)]
    rows = [["1", "", "A man.", "[18, 35]"], ["2", "", "A dog.", DRAMA], ["3", "", "A cat.", DRAMA]]
    assert read(write(tmp_path / "a.csv", rows))[1].as_dict() == counts(malformed=1, kept=2)


def test_other_column_names(tmp_path):
    path = write(tmp_path / "a.csv", [["7", "T", "A man.", DRAMA]], ["nr", "name", "plot", "kinds"])
    films, _ = read(path, ColumnNames("nr", "name", "plot", "kinds"), TextTemplate("{name}: {plot}"))
    assert [(f.id, f.title, f.text) for f in films] == [(7, "T", "T: A man.")]


def test_the_title_column_may_lack(tmp_path):
    path = write(tmp_path / "a.csv", [["7", "A man.", DRAMA]], ["id", "overview", "genres"])
    assert read(path)[0][0].title == ""


def test_films_to_tag_need_no_genres(tmp_path):
    rows = [["1", "", "A man.", ""], ["2", "", "A man.", "[]"], ["3", "", "A man.", DRAMA], ["4", "", "A man.", "[{"]]
    films, audit = read(write(tmp_path / "a.csv", rows), require_genres=False)
    assert audit.as_dict() == counts(kept=3, malformed=1)
    assert [f.genres for f in films] == [(), (), ("Drama",)]
    bare = write(tmp_path / "b.csv", [["1", "A man."]], ["id", "overview"])
    assert read(bare, require_genres=False)[1].kept == 1


def test_more_rows_than_the_style_sample(tmp_path):
    rows = [[str(n), "", f"A man walks {n}.", DRAMA] for n in range(1, 451)]
    films, audit = read(write(tmp_path / "a.csv", rows))
    assert audit.as_dict() == counts(kept=450)
    assert [f.id for f in films] == list(range(1, 451))


@pytest.mark.parametrize(
    "text",
    ["No overview found.", "RELEASED", "n/a", "N/A.", " no  overview ", "...", "TBA", "-", "…", "Post Production"],
)
def test_placeholders(text):
    assert is_placeholder(text)


@pytest.mark.parametrize("text", ["A released man.", "None of them walks.", "…and then", "x" * 41])
def test_no_placeholders(text):
    assert not is_placeholder(text)


@pytest.mark.parametrize(
    ("template", "values", "text"),
    [
        ("{overview}", {"overview": " A  man\nwalks. "}, "A man walks."),
        ("{title}. {overview}", {"title": "One", "overview": "A man."}, "One. A man."),
        ("{title}. {overview}", {"title": "", "overview": "A man."}, "A man."),
        ("{overview} - {tagline}", {"overview": "A man.", "tagline": ""}, "A man."),
        ("{overview} - {tagline}", {"overview": "A man", "tagline": ""}, "A man"),
        ("{title}. {overview}", {"title": "", "overview": ""}, ""),
        ("{title}: {tagline}. {overview}", {"title": "One", "tagline": "", "overview": "A man."}, "One: A man."),
        ("{overview}", {"overview": "{title} {0} {{x}}"}, "{title} {0} {{x}}"),
        ("{{{title}}}", {"title": "One"}, "{One}"),
    ],
)
def test_template(template, values, text):
    assert TextTemplate(template).fill(values) == text


@pytest.mark.parametrize("template", ["", "plain", "{overview", "overview}", "{}", "{ }", "{{overview}}", "{a{b}}"])
def test_templates_that_are_refused(template):
    with pytest.raises(ConfigError, match=r"data\.text"):
        TextTemplate(template)


def test_other_columns_in_the_text(tmp_path):
    cast = "[{'name': 'Tom Hanks'}, {'name': \"D'Arcy\"}]"
    path = write(tmp_path / "a.csv", [["1", "", "A man.", DRAMA, cast]], [*HEADER, "cast"])
    assert read(path, template=TextTemplate("{overview} With {cast}."))[0][0].text == "A man. With Tom Hanks, D'Arcy."


def bad_file(folder, kind):
    path = folder / ("a.parquet" if "parquet" in kind else "a.csv.gz" if "gzip" in kind else "a.csv")
    good = write(folder / "good.csv", [[n, "", f"A man {n} walks.", DRAMA] for n in range(3000)]).read_bytes()
    content = {
        "empty": b"",
        "empty gzip": gzip.compress(b""),
        "wrong columns": b"a,b\n1,2\n",
        "no csv": b"<html><body>not found</body></html>\n",
        "latin-1": good + "9000,,é,[]\n".encode("latin-1"),
        "utf-16": "id,overview,genres\n".encode("utf-16"),
        "truncated gzip": gzip.compress(good)[:-900],
        "no gzip": good,
        "damaged gzip": flipped(gzip.compress(good)),
        "bad parquet": good,
        "huge field": b'id,overview,genres\n1,"' + b"a" * (65 * 2**20) + b'",[]\n',
    }.get(kind)
    if kind == "directory":
        path.mkdir()
    elif kind == "other ending":
        path = folder / "a.xlsx"
        path.write_bytes(good)
    elif content is not None:
        path.write_bytes(content)
    return path


def flipped(content):
    """Damage within the compressed stream, which zlib itself stumbles over."""
    damaged = bytearray(content)
    dice = random.Random(0)
    for _ in range(200):
        damaged[dice.randrange(20, len(content) - 20)] ^= 0xFF
    return bytes(damaged)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("missing", "no such file"),
        ("directory", "is not a file"),
        ("other ending", "neither in .csv"),
        ("empty", "is empty"),
        ("empty gzip", "has no column"),
        ("wrong columns", "its header is: a, b"),
        ("no csv", "is an HTML page"),
        ("latin-1", "is not UTF-8"),
        ("utf-16", "is not UTF-8"),
        ("truncated gzip", "not a complete gzip file"),
        ("no gzip", "not gzip data: rename it to .csv"),
        ("damaged gzip", "not a complete gzip file"),
        ("bad parquet", "not a readable Parquet file"),
        ("huge field", "not a well-formed table"),
    ],
)
def test_bad_files_are_refused_in_one_line(tmp_path, kind, words):
    with pytest.raises(DataError) as caught:
        read(bad_file(tmp_path, kind))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_check_columns_sees_the_header_only(tmp_path):
    path = write(tmp_path / "a.csv", [["x", "", "", ""]])
    check_columns(FilmSource(path, ColumnNames(), OVERVIEW))
    with pytest.raises(DataError, match="'tagline'"):
        check_columns(FilmSource(path, ColumnNames(), TextTemplate("{tagline} {overview}")))
    with pytest.raises(DataError, match=r"'kinds'.*--data\.columns"):
        check_columns(FilmSource(path, ColumnNames(genres="kinds"), OVERVIEW))
    check_columns(FilmSource(path, ColumnNames(genres="kinds"), OVERVIEW, require_genres=False))


def test_a_file_without_a_usable_film_is_refused_and_leaves_nothing(tmp_path):
    path = write(tmp_path / "a.csv", [["2", "", "", ""], ["1", "", "n/a", DRAMA]])
    with pytest.raises(DataError, match=r"no usable film \(2 rows, 1 missing_overview, 1 placeholder_overview\)"):
        load_films(FilmSource(path, ColumnNames(), OVERVIEW), tmp_path / "cache")
    assert [p for p in (tmp_path / "cache").rglob("*") if p.suffix != ".lock" and p.is_file()] == []


def test_films_are_kept_by_content_and_settings(tmp_path, monkeypatch):
    path = write(tmp_path / "a.csv", [["1", "One", "A man – walks.", DRAMA], ["2", "", "n/a", DRAMA]])
    source = FilmSource(path, ColumnNames(), OVERVIEW)
    first = load_films(source, tmp_path / "cache")
    assert first.ids.tolist() == [1]
    assert first.genres() == [["Drama"]]
    assert first.strings("overview") == ["A man – walks."]
    copy = tmp_path / "another.name.csv"
    copy.write_bytes(path.read_bytes())
    monkeypatch.setattr("genre_lightning.data.films.read_movies", None)  # whoever reads again fails
    again = load_films(replace(source, path=copy), tmp_path / "cache")
    assert (again.digest, again.audit.as_dict()) == (first.digest, counts(kept=1, placeholder_overview=1))
    assert again.strings("title") == ["One"]
    with pytest.raises(TypeError):
        load_films(replace(source, template=TextTemplate("{title}. {overview}")), tmp_path / "cache")
