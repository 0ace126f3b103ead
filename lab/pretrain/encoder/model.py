"""The architecture of the mini encoder, its preprocessing and its tokenizer."""

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

PAD, BOS, EOS = "<pad>", "<bos>", "<eos>"
IMAGE_PX = 96
VOCABULARY_SIZE = 1536
PIXEL_MEAN, PIXEL_STD = 0.5, 0.25
MODEL_CONFIG = {
    "embed_dim": 128,
    "vision_cfg": {
        "timm_model_name": "resnet10t",
        "timm_model_pretrained": False,
        "timm_pool": "avg",
        "timm_proj": "linear",
        "image_size": IMAGE_PX,
    },
    "text_cfg": {
        "context_length": 48,
        "vocab_size": VOCABULARY_SIZE,
        "width": 192,
        "heads": 3,
        "layers": 4,
        "pool_type": "eos",
        "eos_id": 2,
        "pad_id": 0,
        "hf_tokenizer_name": "kallos/mini",
    },
}
PREPROCESS_CONFIG = {
    "mean": [PIXEL_MEAN] * 3,
    "std": [PIXEL_STD] * 3,
    "interpolation": "bicubic",
    "resize_mode": "shortest",
}


def train_tokenizer(captions: list[str], folder: Path) -> None:
    """Write a lower-casing byte-level BPE, which can encode any text, in Hugging Face form."""
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE,
        special_tokens=[PAD, BOS, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(captions, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A {EOS}", special_tokens=[(BOS, 1), (EOS, 2)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, bos_token=BOS, eos_token=EOS
    ).save_pretrained(folder)


def make_model(folder: Path) -> tuple[Any, Any]:
    """Write the config into the folder; returns an untrained open_clip model of it, and its tokenizer."""
    import open_clip

    config = {"model_cfg": MODEL_CONFIG, "preprocess_cfg": PREPROCESS_CONFIG}
    (folder / "open_clip_config.json").write_text(json.dumps(config, indent=2))
    name = f"local-dir:{folder}"
    return open_clip.create_model(name, load_weights=False), open_clip.get_tokenizer(name)
