"""Cells with structure: every form that is read, and every other content refused without being run."""

import ast
import json
import math
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genre_lightning.config.features import Feature
from genre_lightning.data.cells import (
    MAX_CELL_CHARACTERS,
    MalformedCellError,
    is_placeholder_genre,
    parse_genres,
    readable,
)
from genre_lightning.data.features.read import value_of

EXACT = settings(deadline=None, derandomize=True, max_examples=150)
NAMES = st.lists(
    st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=12).filter(str.strip), max_size=6
)


def expected(names):
    stripped = (unicodedata.normalize("NFC", name.strip()) for name in names)
    return tuple(dict.fromkeys(name for name in stripped if not is_placeholder_genre(name)))


@EXACT
@given(NAMES)
def test_what_python_and_json_write_is_read_back(names):
    entries = [{"id": number, "name": name} for number, name in enumerate(names)]
    for cell in (repr(entries), json.dumps(entries), json.dumps(entries, ensure_ascii=False), repr(names)):
        assert parse_genres(cell) == expected(names), cell
    turned = repr([{"name": entry["name"], "id": entry["id"]} for entry in entries])
    assert parse_genres(turned) == expected(names)


@EXACT
@given(st.text("[]{}'\":, idname0123\\n", max_size=60))
def test_any_text_is_a_list_of_names_or_malformed(text):
    try:
        names = parse_genres(text)
    except MalformedCellError:
        return
    assert all(name and name == name.strip() for name in names)
    try:
        value = ast.literal_eval(text.strip() or "[]")
    except (ValueError, SyntaxError):
        return  # as NumPy or Spark write lists
    if isinstance(value, list) and all(isinstance(entry, str) for entry in value):
        assert names == expected(filter(str.strip, value))


@pytest.mark.parametrize(
    ("cell", "names"),
    [
        ("[{'id': 18, 'name': 'Drama'}, {'id': 35, 'name': 'Comedy'}]", ("Drama", "Comedy")),
        ("  [ { 'id' : 18 , 'name' : ' Drama ' } ]  ", ("Drama",)),
        ("[]", ()),
        ("[{'id': 18, 'name': 'Drama'}, {'id': 18, 'name': 'Drama'}]", ("Drama",)),
        ("[{'id': 1, 'name': ''}]", ()),
        (r"[{'id': 1, 'name': 'Children\'s'}]", ("Children's",)),
        ("""[{'id': 1, 'name': "Children's"}]""", ("Children's",)),
        (r'[{"id": 1, "name": "Children\'s"}]', ("Children's",)),
        (r"[{'id': 1, 'name': 'Caf\xe9 \u2013 \\ \"x\"'}]", ('Café – \\ "x"',)),
        (r'[{"id": 1, "name": "Caf\u00e9 \/ Bar"}]', ("Café / Bar",)),
        (r"[{'id': 1, 'name': 'R\d'}]", (r"R\d",)),  # an escape that Python warns of: warnings are errors here
        ('["Drama", "War"]', ("Drama", "War")),
        ("[{'id': 1, 'name': 'a]}, {b'}]", ("a]}, {b",)),
        ("[{'name': 'Drama'}, {'id': '18', 'name': 'War', 'votes': None, 'of': {'id': -1.5}}]", ("Drama", "War")),
        ("[{'id': 18, 'genre': 'Drama'}]", ("Drama",)),
        ("{'id': 18, 'name': 'Drama'}", ("Drama",)),
        ('{"/m/027x": "Drama", "/m/02xh1": "War"}', ("Drama", "War")),
        ("{18: 'Drama'}", ("Drama",)),
        ("('Drama', 'War')", ("Drama", "War")),
        ("('Drama',)", ("Drama",)),
        ("{'Drama', 'War'}", ("Drama", "War")),
        ("frozenset({'Drama'})", ("Drama",)),
        ("set()", ()),
        ("['Drama' 'War']", ("Drama", "War")),
        ("['Drama'\n 'War']", ("Drama", "War")),
        ("array(['Drama', 'War'], dtype=object)", ("Drama", "War")),
        ("[Drama, Science Fiction]", ("Drama", "Science Fiction")),
        ("WrappedArray(Drama, War)", ("Drama", "War")),
        ("[{18, Drama}, {10752, War}]", ("Drama", "War")),
        (r'"[\"Drama\", \"War\"]"', ("Drama", "War")),
        (r'["{\"id\": 18, \"name\": \"Drama\"}"]', ("Drama",)),
        (r"'[\"Drama\", \"War\"]'", ("Drama", "War")),
        ("[{'id': 18, 'name': 'Drama'} {'id': 10752, 'name': 'War'}]", ("Drama", "War")),
        ("[Row(id=18, name='Drama'), Row(id=10752, name='War')]", ("Drama", "War")),
        ("[{id=18, name=Science Fiction}, {id=10752, name=War}]", ("Science Fiction", "War")),
        ("[{id: 18, name: Science Fiction}]", ("Science Fiction",)),
        ("[np.str_('Drama'), np.str_('War')]", ("Drama", "War")),
        (r"[b'Drama', u'War', b'Com\xc3\xa9die']", ("Drama", "War", "Comédie")),
        ("Index(['Drama', 'War'], dtype='object')", ("Drama", "War")),
        ("dict_values(['Drama', 'War'])", ("Drama", "War")),
        ("OrderedDict([(18, 'Drama'), (10752, 'War')])", ("Drama", "War")),
        ("WrappedArray([18,Drama])", ("Drama",)),
        ("[{'genre': 'Drama'}, {'genre': 'War'}]", ("Drama", "War")),
        ('[{"id": "18", "description": "Drama"}]', ("Drama",)),
        ("[{'id': 1, 'name': None}, {'id': None, 'name': nan}]", ()),
        ("", ()),
        ("None", ()),
        (r"\N", ()),
        ("[None]", ()),
        ("['']", ()),
        ("['N/A', 'Drama', 'unknown']", ("Drama",)),
        ("['E\u0301pouvante', '\u00c9pouvante']", ("\u00c9pouvante",)),
        ("['[adult swim]']", ("[adult swim]",)),
    ],
)
def test_lists(cell, names):
    assert parse_genres(cell) == names


@pytest.mark.parametrize(
    "cell",
    [
        "Drama",
        "False",
        "[18]",
        "[True]",
        "[{'id': 18}]",
        "{'id': 18}",
        "[{'id': 18, 'title': 'a', 'text': 'b'}]",
        "['Drama': 1]",
        "['Drama' War]",
        "['Drama'",
        "['Drama']]",
        "('Drama')x",
        "array(['Drama'",
        "[{'id': 18, 'name': 'Drama'}, ]x",
        "[{'id': 18, 'name': 'Drama'}",
        r"[{'id': 18, 'name': b'\xff'}]",
        "[{'id': 18, 'name': f'{1+1}'}]",
        "[{'id': 18, 'name': 'Dra' 'ma'}]",
        "[{'id': 18, 'name': ['Drama']}]",
        "[['Drama']]",
        "[{'id': 01, 'name': 'Drama'}]",
        r"[{'id': 1, 'name': '\x'}]",
        r"[{'id': 1, 'name': '\N{NO SUCH THING}'}]",
        r'[{"id": 1, "name": "\ud83d"}]',  # half a character: no table can hold it
        "[{'id': 1, 'name': 'a\nb'}]",
        f"[{'1' * 5000}]",
        f"[{{'id': {'1' * 5000}, 'name': 'Drama'}}, 1]",
    ],
)
def test_anything_else_is_malformed(cell):
    with pytest.raises(MalformedCellError):
        parse_genres(cell)


@pytest.mark.parametrize("value", [True, 3, 1.5, b"\xff", {"id": 1}, [18], [[1]], [["Drama"]], [{"id": 1}]])
def test_objects_that_are_not_a_list_of_names_are_malformed(value):
    with pytest.raises(MalformedCellError):
        parse_genres(value)


def test_bytes_that_python_has_written_are_text():
    assert parse_genres('b\'["Drama", "War"]\'', "literal") == ("Drama", "War")
    with pytest.raises(MalformedCellError):
        parse_genres("b'Drama'", "literal")


def test_ids_of_64_bits_are_read_over():
    cell = '[{"id": 18446744073709551615, "name": "Drama"}, {"id": -9223372036854775808, "name": "War"}]'
    assert parse_genres(cell) == ("Drama", "War")


def test_numbers_without_end_are_malformed_values():
    tags = Feature("keywords", "tags")
    assert value_of(tags, "[7, 8]") == ["7", "8"]
    assert value_of(tags, [10**17]) == ["1" + "0" * 17]
    for value in ([10**400], f"[{'9' * 400}]", f"[{'9' * 5000}]", [1e300], "[1e999]", [-math.inf]):
        with pytest.raises(MalformedCellError):
            value_of(tags, value)


def test_native_lists():
    assert parse_genres(["War", " Drama ", "War"]) == ("War", "Drama")
    assert parse_genres([{"id": 1, "name": "War"}, {"name": "Drama", "x": None}]) == ("War", "Drama")
    assert parse_genres([b"War", "Com\u00e9die".encode()]) == ("War", "Com\u00e9die")
    assert parse_genres([]) == parse_genres([None]) == parse_genres([float("nan")]) == parse_genres(float("nan")) == ()
    assert parse_genres({"id": 1, "name": "War"}) == ("War",)
    assert parse_genres("[18 35\n 7]", numbers=True) == ("18", "35", "7")
    assert parse_genres([18, 35.0], numbers=True) == ("18", "35")
    assert parse_genres(None) == ()


def test_nothing_is_ever_run(monkeypatch):
    run = []
    monkeypatch.setattr("os.system", run.append)
    call = "__import__('os').system('true')"
    for cell in (call, f"[{call}]", f"[{{'id': {call}, 'name': 'x'}}]", f"[{{'id': 1, 'name': {call}}}]"):
        with pytest.raises(MalformedCellError):
            parse_genres(cell)
    assert not run


@pytest.mark.parametrize(
    "cell",
    [
        "[" * 4_000_000,
        "[" * 30_000 + "]" * 30_000,
        "[{'id': 1, 'name': " + "[" * 60_000,
        "['" + "a" * 4_000_000 + "']",
        "[" + " " * 60_000,
        "[{'id': 1, 'name': '" + "\\" * 60_001,
        "[" + "{'id': 1, 'name': 'a'}, " * 2_500 + "x",
    ],
    ids=["brackets-4MB", "brackets-deep", "brackets-in-name", "name-4MB", "spaces", "backslashes", "nearly"],
)
@pytest.mark.timeout(60)  # a pattern that backtracks would need hours
def test_large_and_deep_cells_are_refused_at_once(cell, monkeypatch):
    def forbidden(text):
        raise AssertionError("the cell was evaluated before its shape was known")

    monkeypatch.setattr("genre_lightning.data.cells._literal", forbidden)
    with pytest.raises(MalformedCellError):
        parse_genres(cell)


def test_the_cap_counts_characters():
    short = "['" + "a" * (MAX_CELL_CHARACTERS - 4) + "']"
    assert len(short) == MAX_CELL_CHARACTERS
    assert parse_genres(short) == ("a" * (MAX_CELL_CHARACTERS - 4),)
    for style in ("list", "separated"):
        with pytest.raises(MalformedCellError, match="characters"):
            parse_genres(" " + short, style)


def test_separated():
    assert parse_genres("Drama, War ,,Drama", "separated") == ("Drama", "War")
    assert parse_genres("Science Fiction, Old|War", "separated", "|") == ("Science Fiction, Old", "War")
    assert parse_genres('"Drama, War"', "separated") == parse_genres("'Drama', 'War'", "separated") == ("Drama", "War")
    assert parse_genres("", "separated") == ()
    assert parse_genres("(no genres listed)", "separated", "|") == ()
    assert parse_genres("Drama|-|N/A", "separated", "|") == ("Drama",)


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        (None, ""),
        (" a b ", "a b"),
        (True, "True"),
        (1.5, "1.5"),
        ("[{'cast_id': 14, 'character': 'Woody', 'name': 'Tom Hanks'}, {'name': \"D'Arcy\"}]", "Tom Hanks, D'Arcy"),
        (r'[{"name": "Caf\u00e9 \/ Bar"}]', "Café / Bar"),
        ([{"name": "a"}, {"name": "b"}], "a, b"),
        (["a", "b"], "a, b"),
        ([{"iso": "en"}], "[{'iso': 'en'}]"),
        (r"[{'name': 'a\x'}]", r"[{'name': 'a\x'}]"),
        (r"[{'name': 'R\d'}]", r"R\d"),
        ('[{"title": "Toy Story"}]', '[{"title": "Toy Story"}]'),
        ('[{"name": "Tim Allen"}\n ] ', "Tim Allen"),
        ('[{"name": "Tim Allen"}' + ', {"name": "a"}' * 10_000 + "]", "Tim Allen, a"),
        ("[{braces in braces}] open a film", "[{braces in braces}] open a film"),
        ("[{'id': 1, 'name': 'A'}] and more", "[{'id': 1, 'name': 'A'}] and more"),
        ("caf\udce9", "caf\ufffd"),
        ("\ud83d\ude00", "\U0001f600"),
    ],
)
def test_readable(cell, text):
    assert readable(cell) == text
