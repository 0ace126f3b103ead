"""The two-tower encoder: an open_clip model as one object, its fingerprint, the Ray actor that embeds images.

A model is a folder in open_clip's local form (`open_clip_config.json`, weights, tokenizer files), a hub name
(`hf-hub:laion/CLIP-ViT-L-14-DataComp.XL-s13B-b90K`), or a built-in architecture with its pretrained tag
(`ViT-L-14/datacomp_xl_s13b_b90k`).

open_clip is imported where it is used: the import takes five seconds, and most of Ray's processes need no
model.
"""

import hashlib
import json
import math
import os
import pickle
import shutil
import tempfile
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pyarrow as pa
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional

from actors.images import Fit, pixels
from cluster.compat import hub
from cluster.errors import UserError, brief, shown
from cluster.profile import repo_path

if TYPE_CHECKING:
    from cluster.tables import EncoderRecord  # not at run time: actors that embed need no LanceDB

CONFIG_NAME = "open_clip_config.json"
WEIGHTS_NAME = "open_clip_model.safetensors"
WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth")
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
HUB_WEIGHTS = (WEIGHTS_NAME, "open_clip_model.bin", "open_clip_pytorch_model.bin")
TEXT_BATCH = 256


class ImageTower(nn.Module):
    """Typed members of an open_clip image tower."""

    preprocess_cfg: dict[str, Any]


class TwoTowers(nn.Module):
    """Typed members of an open_clip model."""

    visual: ImageTower
    logit_scale: torch.Tensor
    encode_image: Callable[[torch.Tensor], torch.Tensor]
    encode_text: Callable[[torch.Tensor], torch.Tensor]


class Encoder:
    """An open_clip model in eval mode. Weights stay float32; `bf16` computes under autocast."""

    def __init__(self, model: nn.Module, tokenizer, config: dict, *, precision: str, device: str) -> None:
        self.model = cast(TwoTowers, model.eval())
        # Convolutions on a CPU run a third faster on channels-last weights; the numbers are the same to 1e-6.
        self.model.visual.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.tokenizer = tokenizer
        self.device = device
        self.config = config
        self.precision = precision
        preprocess = self.model.visual.preprocess_cfg
        size = preprocess["size"]
        height, width = (size, size) if isinstance(size, int) else size
        self.fit = Fit(
            height, width, preprocess["interpolation"], preprocess["resize_mode"], preprocess["fill_color"]
        )
        self._mean = torch.tensor(preprocess["mean"], device=device).view(1, 3, 1, 1) * 255
        self._std = torch.tensor(preprocess["std"], device=device).view(1, 3, 1, 1) * 255

    @classmethod
    def load(
        cls, model: str, *, precision: str = "fp32", num_threads: int | None = None, num_gpus: float = 0.0
    ) -> "Encoder":
        """Load a folder, hub name or `architecture/tag` on the device that this process has reserved.

        num_threads: torch's threads in this process, None leaves them unchanged.
        num_gpus: GPUs that the stage of this process reserves; above 0 the encoder runs on CUDA, else on the
            CPU. A driver reserves none.
        Raises UserError when the precision is unknown, the model cannot be found or read, its weights are
        damaged, or GPUs are reserved where torch sees none.
        """
        if precision not in PRECISIONS:
            raise UserError(f"encoder precision '{precision}' is unknown; allowed: {', '.join(PRECISIONS)}.")
        device = _reserved_device(model, num_gpus)
        if num_threads:
            torch.set_num_threads(num_threads)
        import open_clip

        name, weights = open_clip_name(model)
        _require_on_hub(model, name, weights)
        try:
            network = open_clip.create_model(name, pretrained=weights, device=device, require_pretrained=True)
            tokenizer, config = open_clip.get_tokenizer(name), open_clip.get_model_config(name) or {}
            encoder = cls(network, tokenizer, config, precision=precision, device=device)
            encoder.check()
        except Exception as error:  # libraries raise almost anything for a broken file of a model
            raise UserError(
                f"encoder model '{model}' cannot be loaded: {_reason(error)}: restore its files, or name "
                "another."
            ) from error
        return encoder

    def check(self) -> None:
        """Raises ValueError for weights that are not finite, or that give useless vectors."""
        for name, weight in self.model.state_dict().items():
            if weight.is_floating_point() and not weight.isfinite().all():
                raise ValueError(f"its weights {name} have values that are not finite")
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"its logit_scale gives a temperature of {self.temperature}")
        grey = self.pixels(Image.new("RGB", (64, 48), "grey"))
        vectors = np.concatenate([self.encode_texts(["a picture"]), self.encode_images(grey[None])])
        if vectors.shape != (2, self.dim) or not usable(vectors).all():
            raise ValueError("it does not turn a text and an image into vectors of length 1")

    @cached_property
    def dim(self) -> int:
        """Length of the vectors."""
        return int(self.config["embed_dim"])

    @property
    def temperature(self) -> float:
        """tau = exp(-logit_scale): similarities are divided by it."""
        return float(torch.exp(-self.model.logit_scale.detach()).mean())

    @cached_property
    def fingerprint(self) -> str:
        """Hash of architecture, preprocessing, tokenizer and weights at first access; 16 hex characters."""
        return _fingerprint(self, self.model.state_dict())

    @cached_property
    def image_fingerprint(self) -> str:
        """Hash of the image tower alone: encoders that share it give an image the same vector."""
        digest = hashlib.sha256(_canonical(self.config.get("vision_cfg")))
        digest.update(_canonical(_preprocessing(self.model)))
        _add_weights(digest, self.model.visual.state_dict())
        return digest.hexdigest()[:16]

    def pixels(self, image: Image.Image) -> np.ndarray:
        """RGB image -> uint8 [3, H, W]: resized and cropped as the model expects, not normalised."""
        return pixels(image, self.fit)

    def tokenize(self, texts: Sequence[str]) -> torch.Tensor:
        """Texts -> token ids, int64 [B, context]; longer texts are truncated."""
        return self.tokenizer(list(texts))

    def num_words_read(self, text: str) -> int:
        """Number of words, separated by blanks, at the start of the text that `tokenize` keeps completely."""
        words = text.split()
        return bisect_right(
            range(1, len(words) + 1),
            self.tokenizer.context_length,
            key=lambda count: self._num_tokens(" ".join(words[:count])),
        )

    def _num_tokens(self, text: str) -> int:
        """Number of tokens of the whole text, with those that mark its start and end."""
        inner: Any = getattr(self.tokenizer, "tokenizer", None)
        if inner is None:  # open_clip's own tokenizer
            return len(self.tokenizer.encode(text)) + 2
        # Unlike a call of `inner`, this does not change settings that another thread may be using.
        backend = inner.backend_tokenizer
        encoding = backend.encode(self.tokenizer.clean_fn(text))
        num_text = sum(part.special_tokens_mask.count(0) for part in (encoding, *encoding.overflowing))
        return num_text + backend.num_special_tokens_to_add(False)

    def image_features(self, pixels: torch.Tensor) -> torch.Tensor:
        """Pixels in [0, 255], uint8 or float [B, 3, H, W] -> L2-normalised float32 [B, dim], with grad."""
        with self._autocast():
            features = self.model.encode_image(self.normalise(pixels))
        return functional.normalize(features.float(), dim=-1)

    def normalise(self, pixels: torch.Tensor) -> torch.Tensor:
        """Pixels in [0, 255], uint8 or float [B, 3, H, W] -> the image tower's input, on its device."""
        return (pixels.to(self.device).float() - self._mean) / self._std

    def text_features(self, tokens: torch.Tensor) -> torch.Tensor:
        """Token ids int64 [B, context] -> L2-normalised float32 [B, dim], with gradient."""
        with self._autocast():
            features = encode_text(self.model, tokens.to(self.device))
        return functional.normalize(features.float(), dim=-1)

    @torch.inference_mode()
    def encode_images(self, pixels: np.ndarray | torch.Tensor) -> np.ndarray:
        """uint8 [B, 3, H, W] -> L2-normalised float32 [B, dim]."""
        return self.image_features(torch.as_tensor(pixels)).cpu().numpy()

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Texts -> L2-normalised float32 [B, dim]; no texts give [0, dim]."""
        batches = [texts[start : start + TEXT_BATCH] for start in range(0, len(texts), TEXT_BATCH)]
        vectors = [self.text_features(self.tokenize(batch)).cpu().numpy() for batch in batches]
        return np.concatenate(vectors) if vectors else np.zeros((0, self.dim), np.float32)

    def _autocast(self) -> torch.autocast:
        dtype = PRECISIONS[self.precision]
        return torch.autocast(torch.device(self.device).type, torch.bfloat16, enabled=dtype != torch.float32)


def usable(vectors: np.ndarray) -> np.ndarray:
    """bool [B]: whether each vector, float [B, D], can be searched: it has no NaN, and is not all zeros."""
    return np.abs(np.linalg.norm(vectors, axis=1) - 1) < 0.01  # false for NaN


def _reason(error: Exception) -> str:
    """The message on one short line: libraries report faults of a model over many lines."""
    if isinstance(error, pickle.UnpicklingError):  # its text advises to load code from the file
        return "its weights are damaged, or are not plain tensors"
    text = str(error)
    return brief(text if " " in text else f"{type(error).__name__} {text}")


def _require_on_hub(model: str, name: str, weights: str | None) -> None:
    """Raise UserError for a model of the hub that is neither in the cache nor within reach.

    Without a connection to the hub, the model is loaded from the cache alone.
    """
    import open_clip

    repository = open_clip.get_pretrained_cfg(name, weights).get("hf_hub", "") if weights else ""
    repository = name.removeprefix("hf-hub:") if name.startswith("hf-hub:") else repository.strip("/")
    if not repository or hub.is_reachable(repository):
        return
    if not any(hub.is_cached(repository, file) for file in HUB_WEIGHTS):
        raise UserError(
            f"encoder model '{model}' is not in the cache of this machine, and the hub cannot be reached: "
            "connect to it, or name the folder of a model."
        )


def _reserved_device(model: str, num_gpus: float) -> str:
    if not num_gpus:
        return "cpu"
    if not torch.cuda.is_available():
        raise UserError(
            f"The stage of encoder '{model}' reserves {num_gpus:g} GPUs, and torch sees no GPU on its node: "
            "install torch for CUDA there, or set encoder.stage.num_gpus to 0 and align.use_gpu to false."
        )
    return "cuda"


def load_registered(
    record: "EncoderRecord", *, precision: str = "fp32", num_threads: int | None = None, num_gpus: float = 0.0
) -> Encoder:
    """Load the encoder of a record: `Encoder.load`, and a check of its fingerprint.

    Raises UserError when its checkpoint is gone or cannot be loaded, or now holds another encoder.
    """
    require_checkpoint(record)
    encoder = Encoder.load(record.checkpoint, precision=precision, num_threads=num_threads, num_gpus=num_gpus)
    if encoder.fingerprint != record.encoder:
        raise UserError(
            f"The checkpoint {record.checkpoint!r} holds encoder {encoder.fingerprint}, no longer "
            f"{record.encoder}: put the old checkpoint back, or run `kallos index --encoder "
            f"{encoder.fingerprint}` and point the alias to it."
        )
    return encoder


def require_checkpoint(record: "EncoderRecord") -> None:
    """Raise UserError when the checkpoint's folder does not exist on this machine."""
    if os.path.isabs(record.checkpoint) and not os.path.isdir(record.checkpoint):
        raise UserError(
            f"The folder {record.checkpoint} of encoder {record.encoder} does not exist: put it back; a "
            "moved or copied store needs the folders beside it."
        )


def encode_text(model: nn.Module, tokens: torch.Tensor) -> torch.Tensor:
    """open_clip's `encode_text`, int64 [B, context] -> [B, dim], without the padding after the longest text.

    Attention is causal and the result is read at the last token, so padding changes nothing: a query of eight
    tokens costs a tenth of a context of 77. A text tower with other attention runs on the whole context.
    """
    import open_clip

    clip: Any = model
    causal_mask = clip.attn_mask if isinstance(model, open_clip.CLIP) else None
    if causal_mask is None or clip.text_pool_type not in ("eos", "argmax") or not len(tokens):
        return clip.encode_text(tokens)
    last = torch.eq(tokens, clip.text_eos_id).int() if clip.text_pool_type == "eos" else tokens
    last = last.argmax(dim=-1)
    length = int(last.max()) + 1
    dtype = clip.transformer.get_cast_dtype()
    x = clip.token_embedding(tokens[:, :length]).to(dtype) + clip.positional_embedding[:length].to(dtype)
    x = clip.ln_final(clip.transformer(x, attn_mask=causal_mask[:length, :length]))
    x = x[torch.arange(len(x), device=x.device), last]
    projection = clip.text_projection
    if projection is None:
        return x
    return projection(x) if isinstance(projection, nn.Linear) else x @ projection


def open_clip_name(model: str) -> tuple[str, str | None]:
    """A profile's model name -> open_clip's (name, pretrained). Raises UserError for an unknown one."""
    import open_clip

    if model.startswith(("hf-hub:", "local-dir:")):
        return model, None
    folder = Path(repo_path(model))
    if os.path.isdir(folder):
        if not (folder / CONFIG_NAME).is_file():
            raise UserError(
                f"encoder folder '{model}' has no {CONFIG_NAME}; give a folder in open_clip's form."
            )
        return f"local-dir:{folder}", None
    name, _, weights = model.partition("/")
    if name not in open_clip.list_models() or not weights:
        raise UserError(
            f"encoder model {shown(model)} is not a folder; give an open_clip folder, 'hf-hub:owner/name' "
            "or 'architecture/pretrained-tag' such as 'ViT-L-14/datacomp_xl_s13b_b90k'."
        )
    return name, weights


def save_encoder(model: nn.Module, source: str, folder: str) -> str:
    """Write `model` as an open_clip folder and return its fingerprint.

    Config and tokenizer are those of `source`, the model it came from: a folder, hub name or built-in. The
    folder appears complete or not at all.
    Raises UserError when `folder` already holds a different encoder.
    """
    target = Path(folder)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".saving-") as scratch:
        draft = Path(scratch) / "encoder"
        _write_config_and_tokenizer(model, source, draft)
        state = {
            name: value.detach().cpu().clone().contiguous() for name, value in model.state_dict().items()
        }
        save_file(state, draft / WEIGHTS_NAME)
        fingerprint = Encoder.load(str(draft)).fingerprint
        if not target.exists():
            draft.rename(target)
        elif Encoder.load(folder).fingerprint != fingerprint:
            raise UserError(f"folder '{folder}' already holds another encoder; choose a new folder.")
    return fingerprint


def _write_config_and_tokenizer(model: nn.Module, source: str, folder: Path) -> None:
    name, _ = open_clip_name(source)
    if name.startswith("local-dir:"):
        unwanted = shutil.ignore_patterns(*(f"*{suffix}" for suffix in WEIGHT_SUFFIXES), "*.md")
        shutil.copytree(name.removeprefix("local-dir:"), folder, ignore=unwanted)
        return
    import open_clip

    folder.mkdir()
    preprocess = {key: value for key, value in _preprocessing(model).items() if key != "size"}
    config = {"model_cfg": open_clip.get_model_config(name), "preprocess_cfg": preprocess}
    (folder / CONFIG_NAME).write_text(json.dumps(config, indent=2))
    tokenizer: Any = open_clip.get_tokenizer(name)
    if hasattr(tokenizer, "save_pretrained"):
        tokenizer.save_pretrained(folder)


def _fingerprint(encoder: Encoder, state: dict[str, torch.Tensor]) -> str:
    digest = hashlib.sha256(_canonical(encoder.config))
    digest.update(_canonical(_preprocessing(encoder.model)))
    digest.update(_canonical(_tokenizer_identity(encoder.tokenizer)))
    _add_weights(digest, state)
    return digest.hexdigest()[:16]


def _preprocessing(model: nn.Module) -> dict[str, Any]:
    return dict(cast(TwoTowers, model).visual.preprocess_cfg)


def _tokenizer_identity(tokenizer: Any) -> dict[str, Any]:
    """What determines the token ids: the tokenizer's description without the padding of the last call."""
    inner: Any = getattr(tokenizer, "tokenizer", None)
    if inner is None or not hasattr(inner, "backend_tokenizer"):
        vocabulary = tokenizer.encoder if inner is None else inner.get_vocab()
        return {"class": type(tokenizer).__name__, "vocabulary": vocabulary}
    description = json.loads(inner.backend_tokenizer.to_str())
    description.update(padding=None, truncation=None)
    ids = [inner.pad_token_id, inner.bos_token_id, inner.eos_token_id]
    return {"class": type(tokenizer).__name__, "description": description, "ids": ids}


def _canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, ensure_ascii=True, separators=(",", ":")).encode()


def _add_weights(digest: "hashlib._Hash", state: dict[str, torch.Tensor]) -> None:
    for name in sorted(state):
        weight = state[name].detach().float().cpu().contiguous()
        digest.update(f"{name}{list(weight.shape)}".encode())
        digest.update(weight.numpy().tobytes())


def pixel_array(column: pa.ChunkedArray, fit: Fit) -> np.ndarray:
    """Arrow column of raw pixels (fixed_size_binary) -> uint8 [B, 3, H, W]."""
    raw = bytearray().join(cast(list[bytes], column.to_pylist()))  # torch needs a writable buffer
    return np.frombuffer(raw, np.uint8).reshape(-1, 3, fit.height_px, fit.width_px)


def vector_array(vectors: Iterable[np.ndarray] | np.ndarray, dim: int) -> pa.FixedSizeListArray:
    """float32 [B, dim] -> Arrow fixed_size_list<float32>[dim], the type of every `vector` column."""
    flat = np.ascontiguousarray(vectors, dtype=np.float32).reshape(-1)
    return pa.FixedSizeListArray.from_arrays(pa.array(flat), dim)


class EncodeImages:
    """Ray Data actor on Arrow batches: `pixels` (raw uint8 [3, H, W]) -> `vector` [dim], null for none."""

    def __init__(
        self, *, model: str, precision: str = "fp32", num_threads: int | None = None, num_gpus: float = 0.0
    ) -> None:
        self.encoder = Encoder.load(model, precision=precision, num_threads=num_threads, num_gpus=num_gpus)

    def __call__(self, batch: pa.Table) -> pa.Table:
        given = np.flatnonzero(batch["pixels"].is_valid())
        vectors = np.zeros((0, self.encoder.dim), np.float32)
        if len(given):
            pixels = pixel_array(batch["pixels"].drop_null(), self.encoder.fit)
            vectors = self.encoder.encode_images(pixels)
        indices = np.full(batch.num_rows, -1)
        indices[given] = np.where(usable(vectors), np.arange(len(given)), -1)
        column = vector_array(vectors, self.encoder.dim).take(pa.array(indices, pa.int64(), mask=indices < 0))
        return batch.drop_columns("pixels").append_column("vector", column)
