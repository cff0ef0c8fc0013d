"""Files of films from anywhere: every row is accounted for, and what cannot be read is one line with the fix."""

import csv
import gzip
import io
import json
import os
import tarfile
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from genre_lightning.__main__ import main
from genre_lightning.config.columns import ColumnNames
from genre_lightning.config.data import DataOptions
from genre_lightning.config.words import column_options
from genre_lightning.data.csv_rows import MAX_ROW_CHARACTERS
from genre_lightning.data.datamodule import MovieDataModule
from genre_lightning.data.films import load_films
from genre_lightning.data.new_films import NewFilms
from genre_lightning.data.tables import read_rows
from genre_lightning.errors import ConfigError, DataError
from genre_lightning.progress import ReadShare

HEADER = ("id", "title", "overview", "genres")
GENRES = ("Action", "Comedy", "Drama", "Horror", "Western")
FILMS = 60


def names_of(number):
    """One genre, or two for every third film."""
    return [GENRES[number % 5], *([GENRES[(number + 2) % 5]] if number % 3 == 0 else [])]


def rows(cell="|".join, ids=str):
    return [[ids(n), f"Film {n}", f"A road and a boat, number {n}.", cell(names_of(n))] for n in range(1, FILMS + 1)]


def as_csv(table, header=HEADER, **form):
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n", **form).writerows([header, *table])
    return text.getvalue()


def write(folder, content, name="films.csv"):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def load(path, **options):
    return load_films(DataOptions(path, **options).source, path.parent / "cache")


def check_whole(films, kept=FILMS):
    assert films.audit.kept == kept
    assert films.genres() == [names_of(int(text.rpartition(" ")[2][:-1])) for text in films.strings("overview")]


# ids


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        (str, list(range(1, FILMS + 1))),
        (lambda n: f"{n}.0", list(range(1, FILMS + 1))),
        (lambda n: f"tt{n:07}", [f"tt{n:07}" for n in range(1, FILMS + 1)]),
        (lambda n: f"s{n}" if n % 2 else f"{n}.0", [f"s{n}" if n % 2 else str(n) for n in range(1, FILMS + 1)]),
    ],
    ids=["numbers", "floats", "text", "mixed"],
)
def test_ids_are_numbers_or_text(tmp_path, ids, expected):
    path = write(tmp_path, as_csv(rows(ids=ids)))
    films = load(path)
    check_whole(films)
    assert films.ids.tolist() == expected
    columns = ColumnNames()
    assert [film.id for film in NewFilms(path, columns, {}).read()] == [str(value) for value in expected]


def test_a_file_without_ids_is_numbered_by_row(tmp_path):
    path = write(tmp_path, as_csv([row[1:] for row in rows()], HEADER[1:]))
    films = load(path)
    check_whole(films)
    assert films.ids.tolist() == list(range(1, FILMS + 1))
    assert films.notes == ("the file has no column of ids: its rows are numbered from 1",)
    assert [film.id for film in NewFilms(path, ColumnNames(), {}).read()] == [str(n) for n in range(1, FILMS + 1)]
    with pytest.raises(DataError, match="no column 'imdb'"):
        load(path, columns=ColumnNames(id="imdb"))


@pytest.mark.parametrize("empty", ["", "nan", "None"])
def test_an_empty_id_is_malformed(tmp_path, empty):
    for kind in (str, "tt{}".format):
        path = write(tmp_path, as_csv(rows(ids=lambda n, kind=kind: empty if n == 7 else kind(n))))
        assert load(path).audit.malformed == 1
        assert [film.id for film in NewFilms(path, ColumnNames(), {}).read()][6] is None
    path = write(tmp_path, as_csv(rows(ids=lambda n: empty if n % 2 else str(n))))
    with pytest.raises(DataError, match=r"most for their id, such as row 1, 'id' = .*--data\.columns\.id, or leave it"):
        load(path)


def test_ids_of_more_digits_than_an_integer_has_are_text(tmp_path):
    path = write(tmp_path, as_csv(rows(ids=lambda n: str(10**20 + n))))
    assert load(path).ids.tolist()[0] == next(NewFilms(path, ColumnNames(), {}).read()).id == str(10**20 + 1)


def test_ids_of_two_kinds_are_reported_with_value_and_count(tmp_path):
    films = load(write(tmp_path, as_csv(rows(ids=lambda n: f"tt{n}" if n % 2 else str(n)))))
    assert films.notes == ("30 of 60 ids are not whole numbers, such as 'tt1': all are kept as text",)
    films = load(write(tmp_path, as_csv(rows(ids=lambda n: "x" if n == 9 else str(n)))))
    assert films.audit.malformed == 1
    assert films.notes[0] == "1 of 60 ids are not whole numbers, such as 'x': those are malformed"


def test_text_ids_reach_splits_and_predictions(tmp_path):
    path = write(tmp_path, as_csv(rows(ids=lambda n: f"tt{n}")))
    data = MovieDataModule(path, cache_dir=tmp_path / "cache").prepare_films()
    assert len({split.sha256 for split in data.splits.values()}) == 3


# genres


def entries(names):
    return [{"id": GENRES.index(name), "name": name} for name in names]


CELLS = {
    "pipes": "|".join,
    "commas": ", ".join,
    "semicolons": ";".join,
    "line breaks": "\n".join,
    "entries": lambda names: repr(entries(names)),
    "JSON with more keys": lambda names: json.dumps([{**entry, "of": None, "votes": 1.5} for entry in entries(names)]),
    "names only": lambda names: repr([{"name": name} for name in names]),
    "dict": lambda names: json.dumps({f"/m/{name}": name for name in names}),
    "tuple": lambda names: repr(tuple(names)),
    "NumPy": lambda names: str(np.array(names, dtype=object)),
    "NumPy array": lambda names: repr(np.array(names, dtype=object)),
    "Spark": lambda names: f"[{', '.join(names)}]",
    "JSON in JSON": lambda names: json.dumps(json.dumps(names)),
}


@pytest.mark.parametrize("form", CELLS)
def test_forms_of_genres(tmp_path, form):
    check_whole(load(write(tmp_path, as_csv(rows(CELLS[form])))))


def test_the_separator_is_that_of_most_rows(tmp_path):
    table = rows(", ".join)
    table[2][3] = "|".join(names_of(3))
    check_whole(load(write(tmp_path, as_csv(table))))


def test_a_separator_may_come_late(tmp_path, monkeypatch):
    monkeypatch.setattr("genre_lightning.data.movies._HEAD_ROWS", 2)
    check_whole(load(write(tmp_path, as_csv(rows()))))
    # names with commas in them, and the first pipe after the first rows
    table = [[*row[:3], row[3].replace("Drama", "Drama, Old")] for row in rows()]
    films = load(write(tmp_path, as_csv(table)))
    assert {name for names in films.genres() for name in names} == {*GENRES, "Drama, Old"} - {"Drama"}


@pytest.mark.parametrize("separator", ["/", " & ", "#", "\t", "<br>"])
def test_an_unusual_separator_is_found_and_reported(tmp_path, separator):
    films = load(write(tmp_path, as_csv(rows(separator.join))))
    check_whole(films)
    assert films.notes == (
        f"genres are separated at {separator.strip(' ')!r}: name another with --data.genre_separator",
    )
    table = [[*row[:3], "Sci-Fi & Fantasy" if row[3] == "Drama" else row[3].partition("|")[0]] for row in rows()]
    films = load(write(tmp_path, as_csv(table)))
    assert ["Sci-Fi & Fantasy"] in films.genres()
    assert films.notes == ()


@pytest.mark.parametrize("separator", [" - ", " and "])
def test_a_separator_that_names_hold_too_is_suggested_and_not_taken(tmp_path, separator):
    path = write(tmp_path, as_csv(rows(separator.join)))
    films = load(path)
    assert any(separator in name for names in films.genres() for name in names)
    assert [note.partition(" (")[0] for note in films.notes] == [f"looks like {separator!r} separates genres"]
    assert films.notes[0].endswith(f"set --data.genre_separator {separator!r}")
    films = load(path, genre_separator=separator)
    check_whole(films)
    assert films.notes == ()
    # a few such names are names, and so are those of a list with commas that ends with "and"
    table = [[*row[:3], ", ".join(row[3].replace("Drama", f"Drama{separator}War").split("|"))] for row in rows()]
    assert load(write(tmp_path, as_csv(table))).notes == ()


def test_an_odd_comma_does_not_hide_an_unusual_separator(tmp_path):
    table = rows(" / ".join)
    table[2][3] = "Action, Drama"
    assert "looks like '/' separates genres" in load(write(tmp_path, as_csv(table))).notes[0]


def test_dashes_of_a_list_of_lines_are_not_part_of_genres(tmp_path):
    check_whole(load(write(tmp_path, as_csv(rows(lambda names: "\n".join(f"- {name}" for name in names))))))


@pytest.mark.parametrize("form", ["pipes", "entries"])
def test_placeholder_genres_are_not_genres(tmp_path, form):
    table = rows(CELLS[form])
    empty = ["", "N/A", "nan", "None", r"\N", "unknown", "(no genres listed)", "-", "null"]
    empty += ["—", "...", "[unknown]", "TBA", "No genre", "#N/A", "[]", "[None]", "['']"]
    for row, cell in zip(table, empty, strict=False):
        row[3] = cell
    films = load(write(tmp_path, as_csv(table)))
    check_whole(films, kept=FILMS - len(empty))
    assert films.audit.no_genres == len(empty)


def test_one_name_in_two_unicode_forms_is_one_genre(tmp_path):
    table = rows()
    for number, row in enumerate(table):
        row[3] = "E\u0301pouvante" if number % 2 else "\u00c9pouvante"
    assert {tuple(names) for names in load(write(tmp_path, as_csv(table))).genres()} == {("\u00c9pouvante",)}


def test_variants_in_case_are_reported_and_merged_on_request(tmp_path):
    table = rows()
    for row in table[::10]:
        row[3] = row[3].upper()
    path = write(tmp_path, as_csv(table))
    apart = MovieDataModule(path, cache_dir=tmp_path / "cache").prepare_films()
    assert len(apart.vocabulary) > 5
    assert any("merge them with --data.merge_genre_case true" in note for note in apart.audit["notes"])
    merged = MovieDataModule(path, cache_dir=tmp_path / "cache", merge_genre_case=True).prepare_films()
    assert merged.vocabulary.names == GENRES
    assert merged.audit["notes"] == []


@pytest.mark.parametrize("listed", [True, False])
def test_columns_of_0_and_1(tmp_path, listed):
    table = [[*row[:3], *(str(int(name in names_of(int(row[0])))) for name in GENRES)] for row in rows()]
    path = write(tmp_path, as_csv(table, (*HEADER[:3], *GENRES)))
    columns = ColumnNames(genres=list(GENRES)) if listed else ColumnNames()
    films = load(path, columns=columns, genre_format="auto" if listed else "one_hot")
    assert films.audit.kept == FILMS
    assert films.genres() == [sorted(names_of(n)) for n in range(1, FILMS + 1)]


def test_objects_that_lack_the_genres_of_other_films(tmp_path):
    lines = [
        {"id": n, "overview": f"A road, number {n}.", **dict.fromkeys(names_of(n), 1)} for n in range(1, FILMS + 1)
    ]
    path = write(tmp_path, "\n".join(map(json.dumps, lines)), "films.jsonl")
    films = load(path, genre_format="one_hot")
    assert [set(genres) for genres in films.genres()] == [set(names_of(n)) for n in range(1, FILMS + 1)]


def read_by(tmp_path, films, **options):
    file = write(tmp_path, "of the reader", "films.txt")
    return MovieDataModule(
        file, reader=lambda path: iter(films), cache_dir=tmp_path / "cache", **options
    ).prepare_films()


def test_a_reader_need_not_give_each_film_every_column(tmp_path):
    films = [
        {"id": n, "overview": f"A road, number {n}.", **dict.fromkeys(names_of(n), 1)} for n in range(1, FILMS + 1)
    ]
    data = read_by(tmp_path, films, genre_format="one_hot")
    assert [set(genres) for genres in data.films.genres()] == [set(names_of(n)) for n in range(1, FILMS + 1)]


def test_types_of_a_reader_are_those_of_all_its_films(tmp_path):
    films = [
        {"id": n, "overview": f"A road, number {n}.", "genres": names_of(n), "score": 1 if n < 4096 else 1.5,
         "title": float("nan") if n < 4200 else "Late"}
        for n in range(4300)
    ]  # fmt: skip
    scores = {"column": "score", "kind": "number"}
    table = read_by(tmp_path, films, features=[scores]).films.table
    assert table["input:score"].to_pylist() == [film["score"] for film in films]
    assert table["title"].to_pylist() == [""] * 4200 + ["Late"] * 100


def test_a_reader_of_several_kinds_in_a_column_is_refused_by_its_name(tmp_path):
    films = [{"id": n if n % 2 else str(n), "overview": f"A road, number {n}.", "genres": ["Drama"]} for n in range(9)]
    with pytest.raises(DataError, match=r"data\.reader yields a column 'id' that no table can hold"):
        read_by(tmp_path, films)


def test_a_column_of_0_and_1_that_begins_empty(tmp_path):
    table = [[str(n), f"A road, number {n}.", str(n % 2), str(n % 3 // 2) if n > 250 else ""] for n in range(1, 301)]
    path = write(tmp_path, as_csv(table, ("id", "overview", "Drama", "Western")))
    films = load(path, genre_format="one_hot")
    assert sum("Western" in genres for genres in films.genres()) == sum(n % 3 == 2 for n in range(251, 301))


def test_a_column_of_0_and_1_that_the_model_reads_is_not_a_genre(tmp_path):
    table = [[str(n), f"A road, number {n}.", str(n % 2), str(n % 3 % 2)] for n in range(1, 61)]
    path = write(tmp_path, as_csv(table, ("id", "overview", "Drama", "adult")))
    adult = {"column": "adult", "kind": "number"}
    films = load(path, genre_format="one_hot", features=[adult])
    assert {name for genres in films.genres() for name in genres} == {"Drama"}
    assert films.inputs["adult"]["known"] == films.audit.kept == 30


def test_a_column_of_0_and_1_with_an_odd_cell_far_behind(tmp_path):
    table = [[str(n), f"A road, number {n}.", str(n % 2), "no" if n == 290 else "1"] for n in range(1, 301)]
    table[280][2] = "7"
    path = write(tmp_path, as_csv(table, ("id", "overview", "Drama", "Western")))
    films = load(path, genre_format="one_hot")
    assert films.audit.malformed == 1
    assert films.audit.kept == 298  # and one without genres


def test_an_empty_list_of_genre_columns_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"data\.columns\.genres is an empty list"):
        DataOptions(tmp_path / "a.csv", columns=ColumnNames(genres=[]))


def test_halves_of_characters_in_any_cell_end_in_no_traceback(tmp_path):
    objects = [dict(zip(HEADER, row, strict=True)) for row in rows(ids=lambda n: f"tt{n}")]
    objects[3]["overview"] += " \ud83d"
    objects[4]["title"] = "\udc00"
    objects[5]["id"] = "tt\ud83d"
    path = write(tmp_path, "\n".join(map(json.dumps, objects)), "films.jsonl")
    keywords = [{"id": one["id"], "keywords": ["a\ud83d", "b"]} for one in objects]
    write(tmp_path, "\n".join(map(json.dumps, keywords)), "keywords.jsonl")
    options = DataOptions(
        path, join=[{"file": tmp_path / "keywords.jsonl"}], text="{title}. {overview} {keywords}", max_malformed=0.1
    )
    films = load_films(options.source, tmp_path / "cache")
    assert films.audit.malformed == 1  # an id cannot be guessed
    assert films.strings("overview")[3].endswith("\ufffd")
    assert films.strings("title")[4] == "\ufffd"
    assert films.joins[0]["rows_without_key"] == 1
    new = NewFilms(path, ColumnNames(), {"overview": "overview"}, cache_dir=tmp_path / "cache")
    assert [film.id for film in new.read()][5] == "tt\ufffd"


@pytest.mark.parametrize("encoding", ["utf-8", "U8", "utf_8_sig", "cp65001", "utf-16-le", "utf-16"])
@pytest.mark.parametrize("name", ["films.csv", "films.jsonl"])
def test_a_byte_order_mark_is_not_part_of_a_name(tmp_path, encoding, name):
    objects = [dict(zip(HEADER, row, strict=True)) for row in rows()]
    text = as_csv(rows()) if name.endswith(".csv") else "\n".join(map(json.dumps, objects))
    marked = text if encoding in ("utf-16", "utf_8_sig") else "\ufeff" + text  # those two write it themselves
    films = load(write(tmp_path, marked.encode(encoding), name), encoding=encoding)
    check_whole(films)
    assert films.ids.tolist() == list(range(1, FILMS + 1))


@pytest.mark.parametrize("first", [-7, 10**19])
def test_numbers_beyond_those_of_ids_are_text_in_every_format(tmp_path, first):
    objects = [dict(zip(HEADER, [first - n, *row[1:]], strict=True)) for n, row in enumerate(rows())]
    pq.write_table(pa.table({name: [str(o[name]) if name == "id" else o[name] for o in objects] for name in HEADER}),
                   tmp_path / "text.parquet")  # fmt: skip
    files = [
        write(tmp_path, as_csv([list(o.values()) for o in objects])),
        write(tmp_path, "\n".join(map(json.dumps, objects)), "films.jsonl"),
        tmp_path / "text.parquet",
    ]
    if first < 0:
        pq.write_table(pa.Table.from_pylist(objects), tmp_path / "films.parquet")
        files.append(tmp_path / "films.parquet")
    for file in files:
        assert load(file).ids.tolist() == [str(o["id"]) for o in objects]


def test_too_many_malformed_rows_stop_with_column_sample_and_shapes(tmp_path):
    table = rows(CELLS["entries"])
    for row in table[::10]:
        row[3] = "{'id': 3}"
    path = write(tmp_path, as_csv(table))
    with pytest.raises(DataError) as refused:
        load(path)
    for part in ("6 of 60 rows", "'genres' = \"{'id': 3}\"", "NumPy", "--data.max_malformed 1"):
        assert part in str(refused.value)
    assert load(path, max_malformed=0.1).audit.malformed == 6


def test_genres_in_columns_that_are_not_named_have_a_hint(tmp_path):
    path = write(tmp_path, as_csv(rows(), (*HEADER[:3], "Drama")))
    with pytest.raises(DataError, match=r"no column 'genres'.*--data\.genre_format one_hot"):
        load(path)


def test_lists_have_no_note_of_a_separator(tmp_path):
    pq.write_table(pa.Table.from_pylist([dict(zip(HEADER, row, strict=True)) for row in rows(list)]),
                   tmp_path / "films.parquet")  # fmt: skip
    assert load(tmp_path / "films.parquet", genre_format="separated").notes == ()


def test_a_loss_that_one_command_accepted_is_refused_by_the_next(tmp_path):
    path = write(tmp_path, as_csv(rows(ids=lambda n: "" if n % 4 == 0 else n)))
    assert load(path, max_malformed=0.5).audit.malformed == FILMS // 4
    with pytest.raises(DataError, match=r"15 of 60 rows are malformed, most for their id, such as row 4, 'id' = ''"):
        load(path)


def test_a_column_that_repeats_is_not_one_of_ids(tmp_path):
    path = write(tmp_path, as_csv(rows(ids=lambda n: 2000 + n % 9)))
    with pytest.raises(DataError, match=r"51 of 60 rows have the 'id' of an earlier row: .*--data\.columns\.id"):
        load(path)
    assert load(path, max_malformed=1).audit.duplicate_id == 51
    twice = rows() * 2
    assert load(write(tmp_path, as_csv(twice), "twice.csv")).audit.duplicate_id == FILMS


# the table


def test_an_unclosed_quote_costs_one_row(tmp_path):
    lines = as_csv(rows()).splitlines(keepends=True)
    lines[5] = lines[5].replace("A road and a boat, ", '"A road and a boat ').replace('""', '"')
    lines[5] = lines[5].replace('."', ".")
    lines[40] = lines[40].replace("A road and a boat, number", '"A road"" and a boat, number').replace('""A', '"A')
    films = load(write(tmp_path, "".join(lines)))
    assert films.audit.rows == FILMS
    assert films.audit.kept == FILMS - films.audit.malformed
    assert films.audit.malformed == 1
    assert "line 6 opens a quote that it does not close" in films.notes[0]


def test_an_unclosed_quote_at_the_end_costs_one_row(tmp_path):
    lines = as_csv([[*row[:2], row[2].replace(",", ""), row[3]] for row in rows()]).splitlines(keepends=True)
    lines[50] = lines[50].replace("A road", '"A road')
    films = load(write(tmp_path, "".join(lines)))
    assert (films.audit.rows, films.audit.kept) == (FILMS, FILMS - 1)


@pytest.mark.parametrize("ids", [str, "tt{:07}".format, None], ids=["numbers", "text", "none"])
@pytest.mark.parametrize("end", [7, 40])
def test_an_unclosed_quote_that_another_row_closes_costs_one_row(tmp_path, ids, end):
    table = [[*row[:2], f"A road, number {row[0]}.".replace(",", ""), row[3]] for row in rows(ids=ids or str)]
    if not ids:
        # only many lines are certainly rows if no id shows it
        table, end = [[f"The {'x' * n} film", *row[2:]] for n, row in enumerate(table)], 40
    lines = as_csv(table, HEADER if ids else HEADER[1:]).splitlines(keepends=True)
    lines[5] = lines[5].replace("A road", '"A road')
    lines[end] = lines[end].replace(".,", '.",')
    films = load(write(tmp_path, "".join(lines)))
    assert (films.audit.rows, films.audit.malformed, films.audit.kept) == (FILMS, 1, FILMS - 1)


def test_a_text_of_lines_with_commas_is_not_damage(tmp_path):
    table = rows()
    for row in table:
        row[2] = f"Red, green, and,\nblue, gold, and, grey\na, b, c, number {row[0]}."
    check_whole(load(write(tmp_path, as_csv(table))))


def test_quotes_behind_backslashes(tmp_path):
    table = rows()
    table[3][2] = 'She says "run, now" and they go, number 4.'
    path = write(tmp_path, as_csv(table, doublequote=False, escapechar="\\"))
    films = load(path)
    check_whole(films)
    assert films.strings("overview")[3] == table[3][2]


def test_a_cell_of_several_lines_is_one(tmp_path):
    table = rows()
    table[3][2] = 'One line,\nanother "line",\r\n\nand number 4.'
    films = load(write(tmp_path, as_csv(table)))
    check_whole(films)
    assert films.strings("overview")[3] == table[3][2]


def test_rows_with_other_cells_than_the_header_are_malformed(tmp_path):
    table = rows()
    table[3] = [*table[3], "more"]
    table[5] = table[5][:2]
    table[7] = [*table[7], "", ""]
    films = load(write(tmp_path, as_csv(table)))
    check_whole(films, kept=FILMS - 2)
    assert films.notes == ("malformed: line 5 has 5 cells under 4 columns",)


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
@pytest.mark.parametrize("said", [False, True])
def test_separators_of_columns(tmp_path, delimiter, said):
    content = as_csv(rows(", ".join), delimiter=delimiter)
    check_whole(load(write(tmp_path, f"sep={delimiter}\n{content}" if said else content)))


@pytest.mark.parametrize("separator", ["\u2028", "\x85", "\x0b"])
def test_a_column_name_with_a_line_separator_is_one_name(tmp_path, separator):
    content = as_csv(rows()).split("\n")
    content = [line and f"{line.rstrip()},{'x' if n else f'a{separator}b'}" for n, line in enumerate(content)]
    check_whole(load(write(tmp_path, "\n".join(content))))


def test_tsv(tmp_path):
    check_whole(load(write(tmp_path, as_csv(rows(), delimiter="\t"), "films.tsv")))


def as_json_lines(table):
    objects = [{**dict(zip(HEADER, row, strict=True)), "genres": names_of(n)} for n, row in enumerate(table, 1)]
    return "".join(json.dumps(each) + "\n" for each in objects)


@pytest.mark.parametrize("name", ["films.jsonl", "films.jsonl.gz"])
def test_json_lines(tmp_path, name):
    content = as_json_lines(rows()).encode()
    path = write(tmp_path, gzip.compress(content) if name.endswith("gz") else content, name)
    check_whole(load(path))
    assert [film.id for film in NewFilms(path, ColumnNames(), {}).read()] == [str(n) for n in range(1, FILMS + 1)]


def test_lines_that_are_not_json_objects_are_malformed(tmp_path):
    lines = as_json_lines(rows()).splitlines(keepends=True)
    lines[4], lines[8] = '{"id": 5, "ov\n', '{"id": 9, "overview": NaN, "genres": null}\n'
    films = load(write(tmp_path, "".join(lines), "films.jsonl"))
    assert (films.audit.rows, films.audit.malformed, films.audit.missing_overview) == (FILMS, 1, 1)
    assert films.notes == ("malformed: line 5 is not a JSON object",)


def test_a_list_in_json_is_not_lines_of_json(tmp_path):
    path = write(tmp_path, json.dumps([{"id": 1, "overview": "A man.", "genres": ["Drama"]}]), "films.jsonl")
    with pytest.raises(DataError, match="has no line that is a JSON object"):
        load(path)


@pytest.mark.parametrize(
    ("encoding", "named"), [("utf-16", "utf-16,"), ("utf-16-le", "utf-16-le"), ("latin-1", "windows-1252")]
)
def test_other_encodings_are_named(tmp_path, encoding, named):
    path = write(tmp_path, as_csv(rows()).replace("boat", "boat in the \u00e9t\u00e9").encode(encoding))
    with pytest.raises(DataError, match=rf"--data\.encoding.*{named}"):
        load(path)
    assert load(path, encoding=encoding).audit.kept == FILMS


def test_windows_1252_by_option(tmp_path):
    table = rows()
    table[0][1] = "Café – noir"
    path = write(tmp_path, as_csv(table).encode("windows-1252"))
    with pytest.raises(DataError, match=r"not UTF-8 text .*--data\.encoding, such as windows-1252"):
        load(path)
    assert load(path, encoding="windows-1252").strings("title")[0] == "Café – noir"
    with pytest.raises(ConfigError, match=r"data\.encoding is 'klingon'"):
        DataOptions(path, encoding="klingon").check_options()


def tarred(content):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        entry = tarfile.TarInfo("films.csv")
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content.encode()))
    return packed.getvalue()


def zipped(content):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("films.csv", content)
    return packed.getvalue()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (zipped(as_csv(rows())), "is a zip archive"),
        (gzip.compress(as_csv(rows()).encode()), r"is gzip data: rename it to \.csv\.gz"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "Git LFS pointer.*git lfs pull"),
        (b"\n<!DOCTYPE html><html><body>Sign in</body></html>", "an HTML page"),
        (b'{"id": 1, "overview": "A man."}\n{"id": 2}\n', "is JSON, not CSV"),
        (tarred(as_csv(rows())), "is a tar archive"),
        (b"%PDF-1.4 ...", "a PDF document"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1....", "an old Excel workbook"),
        (b"PAR1....", r"a Parquet file: rename it to \.parquet"),
        (as_csv(rows()[1:], rows()[0]).encode(), "seems to have no header"),
        (as_csv([[*row[:3], *row[2:]] for row in rows()], (*HEADER[:3], *HEADER[2:])).encode(),
         r"2 columns 'overview' \(columns 3 and 4\)"),
    ],
    ids=["zip", "gzip", "LFS", "HTML", "JSON lines", "tar", "PDF", "Excel", "Parquet", "no header", "header twice"],
)  # fmt: skip
def test_other_contents_are_named(tmp_path, content, words):
    with pytest.raises(DataError, match=words) as refused:
        load(write(tmp_path, content))
    assert "\n" not in str(refused.value)


def test_parquet_cells_are_read_as_text(tmp_path):
    table = {
        "id": [1.0, 2.0],
        "title": [b"One", "Caf\u00e9".encode()],
        "year": [1999.0, float("nan")],
        "score": [7.5, None],
        "overview": ["A man.", "A dog."],
        "genres": [["Drama"], ["War", "Drama"]],
    }
    pq.write_table(pa.table(table), tmp_path / "films.parquet")
    films = load(tmp_path / "films.parquet", text="{title} {year} {score}: {overview}")
    assert films.strings("text") == ["One 1999 7.5: A man.", "Caf\u00e9 : A dog."]
    assert films.ids.tolist() == [1, 2]


@pytest.mark.parametrize(
    "column",
    [
        pa.array([["Drama"], None, ["War"]], pa.large_list(pa.large_string())),
        pa.array([[b"Drama"], [], [b"War"]]),
        pa.array([[("18", "Drama")], None, [("10752", "War")]], pa.map_(pa.string(), pa.string())),
        pa.array(["Drama", None, "War"]).dictionary_encode(),
        pa.array([b"Drama", None, b"War"]),
        pa.array([[{"id": 18, "name": "Drama"}], [{"id": 1, "name": None}], [{"id": 10752, "name": "War"}]]),
    ],
    ids=["large lists", "bytes", "map", "dictionary", "binary", "structs"],
)
def test_genres_of_parquet(tmp_path, column):
    table = {"id": pa.array([1, 2, 3], pa.uint64()), "overview": ["A.", "Dogs.", "Cats."], "genres": column}
    pq.write_table(pa.table(table), tmp_path / "films.parquet")
    films = load(tmp_path / "films.parquet")
    assert films.genres() == [["Drama"], ["War"]]
    assert films.audit.no_genres == 1


def test_parquet_strings_that_are_not_utf_8_are_one_line(tmp_path):
    damaged = pa.StringArray.from_buffers(2, pa.py_buffer(np.array([0, 2, 4], np.int32)), pa.py_buffer(b"ok\xff\xfe"))
    table = pa.table({"id": [1, 2], "overview": damaged, "genres": [["Drama"], ["War"]]})
    pq.write_table(table, tmp_path / "films.parquet")
    with pytest.raises(DataError, match=r"films\.parquet .*UTF-?8"):
        load(tmp_path / "films.parquet")


# columns and templates


def test_names_with_spaces_colons_and_slashes(tmp_path):
    header = ("Unnamed: 0", "Movie/Name", "Plot Summary", "#")
    path = write(tmp_path, as_csv(rows(), header))
    columns = ColumnNames("Unnamed: 0", "Movie/Name", "Plot Summary", "#")
    films = load(path, columns=columns, text="{title}: {overview} {Unnamed: 0}")
    check_whole(films)
    assert films.strings("text")[0] == "Film 1: A road and a boat, number 1. 1"
    assert load(path, columns=columns, text="{Movie/Name}").strings("text")[0] == "Film 1"
    assert column_options(["--data.columns.id", "Unnamed: 0", "--data.columns.genres=[A, B]", "--data.seed", "1"]) == [
        "--data.columns", '{"id": "Unnamed: 0"}', "--data.columns", '{"genres": ["A", "B"]}', "--data.seed", "1",
    ]  # fmt: skip


def test_names_and_separators_are_taken_as_given_by_the_command(tmp_path, capfd):
    path = write(tmp_path, as_csv(rows("#".join), ("Unnamed: 0", "title", "Plot: all", "#")))
    arguments = ["--data.columns.id", "Unnamed: 0", "--data.columns.overview=Plot: all", "--data.columns.genres", "#"]
    arguments += ["--data.genre_separator", "#", "--data.cache_dir", str(tmp_path / "cache"), "--json"]
    assert main(["data", "inspect", str(path), *arguments]) == 0
    assert sorted(json.loads(capfd.readouterr().out)["splits"]["train"]["genres"]) == list(GENRES)


@pytest.mark.parametrize("text", ["{overview} {genres}", "{title} {kinds}", "{Drama}"])
def test_a_text_with_the_labels_is_refused(tmp_path, text):
    columns = ColumnNames(genres=["Drama", "War"] if text == "{Drama}" else "kinds")
    with pytest.raises(ConfigError, match=r"data\.text .*the genres that the model is to predict"):
        DataOptions(tmp_path / "films.csv", columns=columns, text=text)


def test_texts_that_are_all_the_same_are_named(tmp_path):
    path = write(tmp_path, as_csv([[*row[:2], "The same.", row[3]] for row in rows()]))
    with pytest.raises(DataError, match="60 films have 1 distinct text"):
        load(path)
    path = write(tmp_path, as_csv([[*row[:2], f"The same {int(row[0]) % 2}.", row[3]] for row in rows()]))
    with pytest.raises(DataError, match="60 films have 2 distinct texts"):
        MovieDataModule(path, cache_dir=tmp_path / "cache").prepare_films()


def test_labels_that_are_titles_are_named(tmp_path):
    path = write(tmp_path, as_csv(rows()))
    options = {"columns": ColumnNames(genres="title"), "cache_dir": tmp_path / "cache"}
    with pytest.raises(DataError, match=r"the column 'title' names 60 genres for 60 films.*--data\.columns\.genres"):
        MovieDataModule(path, **options).prepare_films()


# sizes


class Endless(io.RawIOBase):
    """A stream of one byte for ever, after some first bytes."""

    def __init__(self, first, byte):
        self.rest, self.byte, self.given = first, byte, 0

    def readable(self):
        return True

    def readinto(self, buffer):
        part = self.rest[: len(buffer)] or self.byte * len(buffer)
        self.rest = self.rest[len(buffer) :]
        buffer[: len(part)] = part
        self.given += len(part)
        assert self.given < 8 * MAX_ROW_CHARACTERS, "read far beyond the largest row"
        return len(part)


@pytest.mark.parametrize(
    ("first", "byte"),
    [
        (b"id,overview,genres\n1,", b"a"),
        (b'id,overview,genres\n1,"', b"\n"),
        (b"", b"a"),
        (b"id,overview,genres\n", b","),
    ],
    ids=["cell", "lines of a cell", "header", "cells"],
)
def test_reading_stops_at_a_row_without_end(tmp_path, monkeypatch, first, byte):
    monkeypatch.setattr("genre_lightning.data.csv_rows.MAX_ROW_CHARACTERS", 2**16)
    path = write(tmp_path, "id,overview,genres\n")
    monkeypatch.setattr("genre_lightning.data.tables._as_text", lambda *_: io.TextIOWrapper(
        io.BufferedReader(Endless(first, byte)), encoding="utf-8", newline=""))  # fmt: skip
    with pytest.raises(DataError, match="has more than 65,536 characters"):
        list(read_rows(path, ["id"]))


def test_a_parquet_cell_without_bound_is_refused(tmp_path):
    table = pa.table({"id": [1, 2], "overview": ["a" * (MAX_ROW_CHARACTERS + 1), "b"], "genres": [["War"], ["War"]]})
    pq.write_table(table, tmp_path / "films.parquet", compression="zstd")
    with pytest.raises(DataError, match="a cell of 16,777,217 bytes in column 'overview'"):
        load(tmp_path / "films.parquet")
    table = pa.table({"id": range(5), "overview": [f"{n}" * (MAX_ROW_CHARACTERS - 9) for n in range(5)]})
    pq.write_table(table, tmp_path / "films.parquet", compression="zstd")
    with pytest.raises(DataError, match="'overview' that grows"):
        list(read_rows(tmp_path / "films.parquet", ["id", "overview"]))


def test_rows_without_films_show_progress(tmp_path):
    path = write(tmp_path, "id,overview,genres\n" + "\n" * 20_000)
    seen = []
    share = ReadShare(count_rows=lambda lines: seen.append((lines, share.measure())))
    assert list(read_rows(path, ["id"], share)) == []
    assert sum(lines for lines, _ in seen) == 20_001
    assert len(seen) >= 4
    assert seen[-1][1] == 1


# change while reading


@pytest.mark.parametrize("change", ["shrinks", "grows", "is replaced"])
def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path, monkeypatch, change):
    monkeypatch.setattr("genre_lightning.data.movies._HEAD_ROWS", 5)
    path = write(tmp_path, as_csv(rows() * 200))
    content = path.read_bytes()
    films = NewFilms(path, ColumnNames(), {"overview": "overview"}).read()
    next(films)
    if change == "shrinks":
        os.truncate(path, 200_000)
    elif change == "grows":
        with path.open("ab") as file:
            file.write(content)
    else:
        (tmp_path / "other").write_bytes(content)
        (tmp_path / "other").replace(path)
    with pytest.raises(DataError, match=r"films\.csv has changed while it was read"):
        list(films)


def test_rows_of_a_changed_file_are_never_cached(tmp_path, monkeypatch):
    path = write(tmp_path, as_csv(rows()))
    before = path.stat()

    def other_content(source):
        # of equal size and time: only the digest tells
        path.write_bytes(path.read_bytes().replace(b"boat", b"ship"))
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        return guess(source)

    from genre_lightning.data import films as module

    guess = module.guess_shapes
    monkeypatch.setattr(module, "guess_shapes", other_content)
    with pytest.raises(DataError, match="has changed while it was read"):
        load(path)
    assert not list((tmp_path / "cache").rglob("films.arrow"))
    monkeypatch.undo()
    assert "ship" in load(path).strings("overview")[0]
