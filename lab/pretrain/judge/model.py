"""A small judge of the Qwen2.5-VL architecture: tokenizer, processor, model, and its saved folder.

Only the sizes differ from the large models: the folder has their file names, special tokens and chat
template, so vLLM and transformers load it like any Qwen2.5-VL.
"""

from collections.abc import Iterable
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForImageTextToText,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
)
from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor

IMAGE_PX = 112
PATCH_PX = 14
MERGE = 2
# A full-size image has 8 x 8 patches, merged 2 x 2 to 16 tokens.
PATCHES_PER_SIDE = IMAGE_PX // PATCH_PX
TOKENS_PER_IMAGE = (PATCHES_PER_SIDE // MERGE) ** 2

PAD = "<|endoftext|>"
SPECIAL_TOKENS = (
    PAD,
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
# Qwen2.5-VL's template, without the numbering of images and the video branch.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}"
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    "<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for content in message['content'] %}"
    "{% if content['type'] == 'image' or 'image' in content or 'image_url' in content %}"
    "<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif 'text' in content %}{{ content['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def train_tokenizer(corpus: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE of at most `vocab_size` tokens, for any text; every digit is a token of its own."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(corpus, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token="<|im_end|>",
        pad_token=PAD,
        additional_special_tokens=list(SPECIAL_TOKENS[1:]),
        model_max_length=1024,
        chat_template=CHAT_TEMPLATE,
    )


def token_id(tokenizer: PreTrainedTokenizerFast, token: str) -> int:
    """The id of one token of the vocabulary."""
    found = tokenizer.convert_tokens_to_ids(token)
    assert isinstance(found, int), token
    return found


def make_processor(tokenizer: PreTrainedTokenizerFast) -> Qwen2_5_VLProcessor:
    """The processor: images up to `IMAGE_PX` squared pixels, in patches of `PATCH_PX`."""
    sizes = {
        "size": {"shortest_edge": (2 * PATCH_PX * MERGE) ** 2, "longest_edge": IMAGE_PX**2},
        "patch_size": PATCH_PX,
        "merge_size": MERGE,
        "temporal_patch_size": 2,
    }
    return Qwen2_5_VLProcessor(
        Qwen2VLImageProcessor(**sizes),
        tokenizer,
        Qwen2VLVideoProcessor(**sizes),
        chat_template=CHAT_TEMPLATE,
    )


def make_config(
    tokenizer: PreTrainedTokenizerFast,
    *,
    vision_width: int = 192,
    vision_depth: int = 4,
    text_width: int = 192,
    text_depth: int = 4,
) -> Qwen2_5_VLConfig:
    """The architecture. Widths are multiples of 32, the size of a head; an attention window is one image."""
    heads = text_width // 32
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": text_width,
        "intermediate_size": text_width * 8 // 3,
        "num_hidden_layers": text_depth,
        "num_attention_heads": heads,
        "num_key_value_heads": heads // 2 if heads % 2 == 0 else heads,
        "max_position_embeddings": 1024,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 6, 6]},
        "bos_token_id": token_id(tokenizer, "<|im_start|>"),
        "eos_token_id": token_id(tokenizer, "<|im_end|>"),
        "pad_token_id": token_id(tokenizer, PAD),
        "tie_word_embeddings": True,
    }
    vision = {
        "depth": vision_depth,
        "hidden_size": vision_width,
        "intermediate_size": vision_width * 8 // 3,
        "num_heads": vision_width // 32,
        "out_hidden_size": text_width,
        "patch_size": PATCH_PX,
        "spatial_merge_size": MERGE,
        "window_size": IMAGE_PX,
        "fullatt_block_indexes": list(range(vision_depth)),
    }
    return Qwen2_5_VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=token_id(tokenizer, "<|image_pad|>"),
        video_token_id=token_id(tokenizer, "<|video_pad|>"),
        vision_start_token_id=token_id(tokenizer, "<|vision_start|>"),
        vision_end_token_id=token_id(tokenizer, "<|vision_end|>"),
        tie_word_embeddings=True,
    )


def make_model(config: Qwen2_5_VLConfig, seed: int) -> Qwen2_5_VLForConditionalGeneration:
    """A model with random float32 weights; eager attention is the fastest on a CPU at these lengths."""
    torch.manual_seed(seed)
    return AutoModelForImageTextToText.from_config(config, attn_implementation="eager").float()


def save(
    model: Qwen2_5_VLForConditionalGeneration, processor: Qwen2_5_VLProcessor, folder: str | Path
) -> Path:
    """Write weights (bfloat16 safetensors), config, tokenizer and processor; the model stays float32."""
    folder = Path(folder)
    weights = {name: tensor.to(torch.bfloat16) for name, tensor in model.state_dict().items()}
    weights.pop("lm_head.weight", None)  # tied to the token embeddings
    model.save_pretrained(folder, state_dict=weights)
    processor.save_pretrained(folder)
    return folder


def load(folder: str | Path) -> tuple[PreTrainedTokenizerFast, Qwen2_5_VLForConditionalGeneration]:
    """Tokenizer and float32 model of a folder that `save` wrote."""
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    )
    return PreTrainedTokenizerFast.from_pretrained(folder), model
