"""The Llama configurations are valid and say what their comments say; only their models are not here."""

from pathlib import Path

import pytest
import yaml

from genre_lightning.config.parser import parse
from genre_lightning.models.decoder import FrozenDecoder
from genre_lightning.training.setup import check_setup

CONFIGS = sorted((Path(__file__).parent.parent / "configs").glob("llama2_*.yaml"))


def test_there_are_configurations_for_all_sizes():
    assert {path.stem for path in CONFIGS} >= {
        "llama2_qlora", "llama2_13b_qlora", "llama2_70b_qlora", "llama2_lora", "llama2_zero_shot"
    }  # fmt: skip


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_configuration_is_valid(path, sample_csv, tmp_path):
    settings = yaml.safe_load(path.read_text())["model"]["init_args"]
    assert settings["quantization"] == ("none" if path.stem == "llama2_lora" else "nf4")
    words = ["--config", str(path), "--data.csv", str(sample_csv), "--run_dir", str(tmp_path / "run")]
    config, parser = parse("fit", [*words, "--trainer.accelerator=cpu", "--model.backbone=random"])
    setup = check_setup(config, parser)
    assert isinstance(setup.model, FrozenDecoder)
    assert setup.data.layout == setup.model.layout
    assert setup.data.options.max_tokens == 512


@pytest.mark.thorough
def test_the_script_for_the_gpu_runs_at_a_small_size(monkeypatch, capsys, tmp_path):
    import importlib.util
    import json
    import sys

    file = Path(__file__).parents[1] / "tools" / "gpu" / "check.py"
    spec = importlib.util.spec_from_file_location("gpu_check", file)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "gpu_check", module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(sys, "argv", ["check.py", "--small", "--steps", "1", "--out", str(tmp_path / "out.json")])
    assert module.main() == 0
    printed = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert printed == json.loads((tmp_path / "out.json").read_text())
    assert all(check["passed"] for check in printed["checks"].values())
    assert printed["checks"]["nf4_training_step"]["tokens_per_second"] > 0
