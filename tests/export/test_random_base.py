"""Export of a run on random weights: its base is drawn by the seed of the run."""

from small_run import SMALL

from genre_lightning.__main__ import main
from genre_lightning.data.sample.generate import write_sample


def test_a_random_base_of_another_seed_is_exported(tmp_path):
    sample = write_sample(tmp_path / "sample.csv", films=100, seed=1)
    words = ["--seed=7", "--model=genre_lightning.models.llama_qlora.LlamaQLoraClassifier", "--model.backbone=random"]
    shape = "--model.architecture={layers: 1, width: 32, heads: 2, inner_width: 48}"
    data = ["--data.tokenizer=wordpiece", "--trainer.max_epochs=1", "--model.quantization=none"]
    small = [word for word in SMALL if not word.startswith("--model")]
    assert main(["fit", f"--data.csv={sample}", f"--run_dir={tmp_path / 'run'}", *small, *words, shape, *data]) == 0
    assert main(["export", str(tmp_path / "run"), str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "base" / "model.safetensors").is_file()
