"""Training never overwrites a checkpoint, and by default does not write to `models/mini`."""

import pytest

from cluster.errors import UserError
from cluster.profile import ROOT
from lab.pretrain.encoder import job as encoder
from lab.pretrain.folder import check_checkpoint, check_free
from lab.pretrain.judge import job as judge
from lab.pretrain.rephraser import job as rephraser

CONFIGS = {
    "encoder": (encoder, encoder.PretrainEncoderConfig),
    "judge": (judge, judge.PretrainJudgeConfig),
    "rephraser": (rephraser, rephraser.PretrainRephraserConfig),
}


@pytest.mark.parametrize("part", CONFIGS)
def test_a_folder_with_a_checkpoint_is_refused_before_training(part, tmp_path):
    module, config = CONFIGS[part]
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    with pytest.raises(UserError, match="already holds a checkpoint: name another with --out"):
        module.run(config(out=str(tmp_path)))
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"weights"]


@pytest.mark.parametrize("part", CONFIGS)
def test_folders_of_the_shipped_checkpoints_are_refused(part):
    with pytest.raises(UserError, match=part):
        check_free(str(ROOT / "models" / "mini" / part))


@pytest.mark.parametrize("part", CONFIGS)
def test_default_output_folder_is_below_runs(part):
    _, config = CONFIGS[part]
    assert config().out == f"runs/pretrain/{part}"


def test_a_new_folder_and_that_of_a_killed_run_are_accepted(tmp_path):
    check_free(str(tmp_path / "new"))
    (tmp_path / "open_clip_config.json").write_text("{}")
    check_free(str(tmp_path))


def test_damaged_checkpoint_to_start_from_is_refused_before_training(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    check_checkpoint(str(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    with pytest.raises(UserError, match=r"is damaged: model\.safetensors cannot be read"):
        check_checkpoint(str(tmp_path))
