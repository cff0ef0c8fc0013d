"""The Movies Dataset, from a Kaggle that is made up."""

import sys
from types import ModuleType

import pytest

from genre_lightning.__main__ import main
from genre_lightning.data.sample.generate import write_sample


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """A file of the dataset's form and of more than a thousand films."""
    return write_sample(tmp_path_factory.mktemp("kaggle") / "movies_metadata.csv", films=1100, seed=3)


@pytest.fixture
def kaggle(monkeypatch):
    """Puts a kagglehub in place that returns what it is given, and notes what it was asked for."""

    class Kaggle(ModuleType):
        answer: object = None
        asked: list

        def dataset_download(self, handle, path=None):
            self.asked.append((handle, path))
            if isinstance(self.answer, Exception):
                raise self.answer
            return str(self.answer)

    module = Kaggle("kagglehub")
    module.asked = []
    monkeypatch.setitem(sys.modules, "kagglehub", module)
    return module


def refused(capfd, folder, *words):
    assert main(["data", "download", str(folder)]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    for word in words:
        assert word in err


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_the_file_is_checked_and_placed(kaggle, real, tmp_path, capfd, kind):
    kaggle.answer = real if kind == "file" else real.parent
    target = tmp_path / "new" / "data"
    assert main(["data", "download", str(target)]) == 0
    out, err = capfd.readouterr()
    assert out.strip() == str(target / "movies_metadata.csv")
    assert "1,100 films kept" in err
    assert (target / "movies_metadata.csv").read_bytes() == real.read_bytes()
    assert [file.name for file in target.iterdir()] == ["movies_metadata.csv"]
    assert kaggle.asked == [("rounakbanik/the-movies-dataset", "movies_metadata.csv")]
    assert main(["data", "download", str(target)]) == 0
    assert "there already" in capfd.readouterr().err
    assert len(kaggle.asked) == 1


def test_offline_says_where_to_get_it(kaggle, tmp_path, capfd):
    kaggle.answer = ConnectionError("no route\nto host")
    refused(capfd, tmp_path / "data", "no route to host", "https://www.kaggle.com/datasets/", "by hand", str(tmp_path))
    assert not (tmp_path / "data").exists()


def test_without_the_library_says_how_to_get_it(monkeypatch, tmp_path, capfd):
    monkeypatch.setitem(sys.modules, "kagglehub", None)
    refused(capfd, tmp_path, "pip install kagglehub", "https://www.kaggle.com/datasets/", "by hand")


def test_another_file_is_not_placed(kaggle, tmp_path, capfd):
    file = tmp_path / "movies_metadata.csv"
    file.write_text("id,name\n1,a\n")
    kaggle.answer = file
    refused(capfd, tmp_path / "data", "has no column")
    kaggle.answer = write_sample(tmp_path / "few" / "movies_metadata.csv", films=100, seed=1)
    refused(capfd, tmp_path / "data", "too few")
    assert not (tmp_path / "data").exists()


def test_a_place_that_cannot_be_written_is_refused(kaggle, real, tmp_path, capfd):
    kaggle.answer = real
    (tmp_path / "data").touch()
    refused(capfd, tmp_path / "data", "cannot be written")
