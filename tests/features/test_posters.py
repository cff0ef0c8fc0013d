"""Film vectors from posters: values by transformers' own processor and model, order, resume, and bad images."""

import json
import struct
import zlib

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from genre_lightning.__main__ import main
from genre_lightning.errors import ConfigError
from genre_lightning.features.images import Preparation, UnreadableImageError, prepared
from genre_lightning.features.posters import find_posters, load_backbone, poster_vectors

CPU = torch.device("cpu")
VISION = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
    "image_size": 32, "patch_size": 8,
}  # fmt: skip
TEXT = {
    "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32, "vocab_size": 100,
    "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1,
}  # fmt: skip


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GENRE_LIGHTNING_CACHE", str(tmp_path / "cache"))


def saved(folder, kind):
    """A small model with random weights, as published ones lie, and the same model."""
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, SiglipConfig, SiglipModel

    torch.manual_seed(0)
    if kind == "clip":
        vision = {**VISION, "projection_dim": 16}
        model = CLIPModel(CLIPConfig(text_config=TEXT, vision_config=vision, projection_dim=16))
        CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)
    else:
        model = SiglipModel(SiglipConfig(text_config=TEXT, vision_config=VISION))
        (folder / "preprocessor_config.json").write_text(
            '{"size": {"height": 32, "width": 32}, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5],'
            ' "resample": 3}'
        )
    model.save_pretrained(folder)
    return model.eval()


def image_file(path, seed, size=(40, 60)):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_vectors_are_those_of_transformers(kind, tmp_path):
    (tmp_path / "model").mkdir()
    model = saved(tmp_path / "model", kind)
    posters = [(n, image_file(tmp_path / "images" / f"{n}.png", n, (40 + n, 60))) for n in range(1, 6)]
    backbone = load_backbone(str(tmp_path / "model"), None, CPU)
    found = poster_vectors(posters, backbone, tmp_path / "cache", batch_size=2)
    assert found.ids.tolist() == [1, 2, 3, 4, 5]
    pixels = np.stack([prepared(path, backbone.preparation) for _, path in posters])
    with torch.no_grad():
        whole = model.get_image_features(pixel_values=torch.from_numpy(pixels))
    expected = whole if isinstance(whole, torch.Tensor) else whole.pooler_output
    np.testing.assert_allclose(found.vectors, expected.numpy(), atol=1e-5)


@pytest.mark.parametrize("size", [(40, 60), (61, 33), (20, 20), (32, 32), (700, 500)])
def test_images_are_prepared_as_clip_prepares_them(size, tmp_path):
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    path = image_file(tmp_path / "1.png", 7, size)
    processor = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    expected = processor(Image.open(path), return_tensors="np")["pixel_values"][0]
    made = prepared(path, Preparation.from_config({"size": {"shortest_edge": 32}, "crop_size": 32}, 32))
    np.testing.assert_allclose(made, expected, atol=1e-5)


def bomb(path):
    """A PNG of a few hundred bytes whose header asks for 100,000 x 100,000 pixels."""

    def part(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    data = part(b"IHDR", header) + part(b"IDAT", zlib.compress(bytes(1000))) + part(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + data)


def test_images_that_cannot_be_read_are_counted_by_reason(tmp_path, capsys):
    (tmp_path / "model").mkdir()
    saved(tmp_path / "model", "clip")
    images = tmp_path / "images"
    image_file(images / "1.png", 1)
    whole = image_file(images / "2.jpg", 2).read_bytes()
    (images / "3.jpg").write_bytes(whole[: len(whole) // 2])
    (images / "4.png").write_text("no image")
    bomb(images / "5.png")
    (images / "6.png").mkdir()
    (images / "poster.png").write_bytes(whole)
    out = tmp_path / "posters.parquet"
    words = ["features", "posters", str(images), "--backbone", str(tmp_path / "model"), "--out", str(out)]
    assert main([*words, "--device", "cpu"]) == 0
    said = capsys.readouterr().err
    table = pq.read_table(out)
    assert table["id"].to_pylist() == [1, 2]
    assert table["vector"].type.list_size == 16
    for line in ("2 vectors of 16", "1 images are of no film", "1 images were left out: damaged",
                 "left out: not an image", "million pixels", "not a regular file"):  # fmt: skip
        assert line in said


def test_an_interrupted_start_resumes(tmp_path, monkeypatch):
    from genre_lightning.features import posters as module

    (tmp_path / "model").mkdir()
    saved(tmp_path / "model", "clip")
    posters = [(n, image_file(tmp_path / "images" / f"{n}.png", n)) for n in range(1, 8)]
    monkeypatch.setattr(module, "_CHUNK", 3)
    backbone = load_backbone(str(tmp_path / "model"), None, CPU)
    read = []
    monkeypatch.setattr(module, "prepared", lambda path, of: read.append(path.name) or prepared(path, of))
    (tmp_path / "images" / "4.png").rename(tmp_path / "away.png")
    monkeypatch.setattr(module, "build_once", stop_after(1, module.build_once))
    with pytest.raises(KeyboardInterrupt):
        poster_vectors(posters, backbone, tmp_path / "cache")
    (tmp_path / "away.png").rename(tmp_path / "images" / "4.png")
    monkeypatch.undo()
    monkeypatch.setattr(module, "_CHUNK", 3)
    monkeypatch.setattr(module, "prepared", lambda path, of: read.append(path.name) or prepared(path, of))
    found = poster_vectors(posters, backbone, tmp_path / "cache")
    assert sorted(read) == [f"{n}.png" for n in range(1, 8)]  # none twice
    assert (found.vectors == poster_vectors(posters, backbone, tmp_path / "anew").vectors).all()


def stop_after(calls, work):
    done = []

    def build_once(*arguments):
        if len(done) == calls:
            raise KeyboardInterrupt
        done.append(arguments)
        return work(*arguments)

    return build_once


def test_posters_are_found_by_poster_path(tmp_path, capsys):
    images = tmp_path / "images"
    image_file(images / "a" / "rhIRbceoE9lR4veEXuwCC2wARtG.png", 1)
    image_file(images / "949.png", 2)
    movies = tmp_path / "movies.csv"
    movies.write_text("id,poster_path\n862,/rhIRbceoE9lR4veEXuwCC2wARtG.png\n8844,/other.png\n")
    from genre_lightning.features.posters import poster_files

    found, strangers = find_posters(images, poster_files(movies))
    assert [film for film, _ in found] == [862, 949]
    assert strangers == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--backbone", "{text}"], "neither CLIP nor SigLIP"),
        (["--backbone", "{none}"], "model.backbone"),
        (["--backbone", "{model}", "--device", "cuda:7"], "is not there"),
        (["--backbone", "{model}", "--data.csv", "{none}.csv"], "no such file"),
    ],
)
def test_bad_use_is_one_line(words, said, tmp_path, capsys):
    (tmp_path / "model").mkdir()
    saved(tmp_path / "model", "clip")
    (tmp_path / "text").mkdir()
    from transformers import DistilBertConfig, DistilBertModel

    DistilBertModel(DistilBertConfig(dim=32, n_layers=1, n_heads=2, hidden_dim=32, vocab_size=50)).save_pretrained(
        tmp_path / "text"
    )
    image_file(tmp_path / "images" / "1.png", 1)
    places = {name: str(tmp_path / name) for name in ("model", "text", "none")}
    capsys.readouterr()
    out = tmp_path / "out.parquet"
    status = main(
        ["features", "posters", str(tmp_path / "images"), "--out", str(out), *(w.format(**places) for w in words)]
    )
    error = capsys.readouterr().err
    assert status in (1, 2)
    assert said in error
    assert error.count("\n") == 1
    assert not out.exists()


def test_a_damaged_preparation_is_refused():
    for values in ({"image_std": [0, 1, 1]}, {"crop_size": 10**9}, {"size": "large"}, {"image_mean": [1]}):
        with pytest.raises(ConfigError, match="damaged"):
            Preparation.from_config(values, 32)


def test_a_model_of_huge_images_is_refused(tmp_path):
    saved(tmp_path, "siglip")
    config = json.loads((tmp_path / "config.json").read_text())
    config["vision_config"] |= {"image_size": 100_000, "patch_size": 25_000}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match="image_size 100000"):
        load_backbone(str(tmp_path), None, CPU)


def test_a_thin_line_is_refused(tmp_path):
    path = image_file(tmp_path / "1.png", 1, (1, 60_000))
    with pytest.raises(UnreadableImageError, match="longer than wide"):
        prepared(path, Preparation(224, 224, 224))
