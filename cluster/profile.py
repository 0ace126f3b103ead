"""Profiles: one typed object that names the models, the resources, the store and every setting.

A profile is a YAML file with the fields of `Profile`; `cluster/profiles/` holds `mini`, `gpu` and `fleet`,
and `docs/profile.md` lists every field.

    profile = load_profile("mini", store="/data/store")
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from cluster.errors import UserError, brief, explain, shown

ROOT = Path(__file__).resolve().parents[1]
PROFILES = Path(__file__).resolve().parent / "profiles"
LARGEST = 2**63  # Arrow and Ray hold integers in 64 bits


Objective = Literal["dpo", "ipo", "hinge", "simpo", "kto", "rank_dpo", "plackett_luce"]


class Settings(BaseModel):
    """A frozen group of settings that refuses unknown keys. A setting of None is not set."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _is_a_usable_number(cls, value: Any, info: ValidationInfo) -> Any:
        kinds = cls.model_fields[info.field_name or ""].annotation
        if isinstance(value, bool) and kinds in (int, float, int | None, float | None):
            raise ValueError("Input should be a number, not true or false")
        if isinstance(value, int) and value >= LARGEST:
            raise ValueError("Input should be less than 2^63")
        return value


class Ray(Settings):
    """Where Ray runs, and how large it may become."""

    address: str = Field(
        description='"local" starts Ray here, "auto" joins the cluster of this machine, host:port another one'
    )
    num_cpus: int | None = Field(
        default=None, ge=1, description="number of logical CPUs of a Ray started here; default: the machine's"
    )
    object_store_bytes: int = Field(ge=80_000_000, description="shared memory of a Ray started here, bytes")
    log_to_driver: bool = Field(default=False, description="show what worker processes print")
    max_cpus: float | None = Field(
        default=None, ge=0, description="number of CPUs that the autoscaler may reach; default: no autoscaler"
    )
    max_gpus: float | None = Field(
        default=None, ge=0, description="number of GPUs that the autoscaler may reach; default: no autoscaler"
    )


class Stage(Settings):
    """The resources of one stage of a pipeline: a pool of equal actors."""

    min_actors: int = Field(default=1, ge=1, description="minimum number of actors")
    max_actors: int = Field(default=1, ge=1, description="maximum number of actors")
    num_cpus: float = Field(default=1.0, ge=0, description="number of logical CPUs of an actor")
    num_gpus: float = Field(default=0.0, ge=0, description="GPUs of an actor; a fraction shares a GPU")
    batch_size: int = Field(default=64, ge=1, description="rows that an actor processes in one call")

    @model_validator(mode="after")
    def _bounds_in_order(self) -> "Stage":
        if self.max_actors < self.min_actors:
            raise ValueError(f"max_actors {self.max_actors} is below min_actors {self.min_actors}")
        return self

    def without_gpus(self) -> "Stage":
        """The same stage on CPUs alone."""
        return self.model_copy(update={"num_gpus": 0.0})


class EncoderModel(Settings):
    """The two-tower encoder, and the stages that decode and embed images."""

    model: str = Field(description='open_clip folder, "hf-hub:..." name, or "architecture/pretrained-tag"')
    precision: Literal["fp32", "bf16"] = Field(default="fp32", description="number format of inference")
    num_threads: int | None = Field(
        default=None, ge=1, description="number of torch threads of an actor; default: torch's own choice"
    )
    stage: Stage = Field(description="actors that compute embeddings")
    decode: Stage = Field(description="tasks or actors that decode and check image files")


class LanguageModel(Settings):
    """A language model, text-only or multi-modal, and the engine that hosts it."""

    model: str = Field(description="Hugging Face folder or hub name")
    engine: Literal["vllm_offline"] = Field(default="vllm_offline", description="engine that hosts the model")
    engine_args: dict[str, Any] = Field(default_factory=dict, description="arguments passed to the engine")
    max_tokens: int = Field(ge=1, description="maximum number of tokens in a reply")
    temperature: float = Field(default=0.0, ge=0, description="sampling temperature; 0 is greedy")
    image_px: int | None = Field(
        default=None,
        ge=1,
        description="images in prompts are shrunk to this longer side, pixels; default: full size",
    )
    stage: Stage = Field(description="actors, each with an engine of its own")


class Label(Settings):
    """How preferences are made; K, u and v are the names that the method's paper uses."""

    style: Literal["original", "repeat", "detail", "k_list", "kw_dict", "reorg"] = Field(
        default="kw_dict", description="the way the rephraser writes"
    )
    source: Literal["scorer", "lmm_score", "lmm_pair"] = Field(
        default="lmm_score",
        description="what orders images by beauty: a scorer, or the judge's ratings or comparisons",
    )
    semantic: Literal["encoder", "judge"] = Field(
        default="judge", description="what rates accuracy: the reference encoder, or the judge"
    )
    top_k: int = Field(default=100, ge=2, description="K: number of images retrieved for a rephrased query")
    rows: int = Field(default=5, ge=1, description="u: number of rows of the partial order")
    columns: int = Field(default=5, ge=1, description="v: number of images in a row of the partial order")
    stride: int = Field(
        default=4, ge=1, description="every stride-th image by accuracy enters the partial order"
    )
    min_accuracy: float = Field(
        default=3.0, ge=1, le=5, description="accuracy below which the teacher drops an image, 1 to 5"
    )

    @model_validator(mode="after")
    def _grid_fits(self) -> "Label":
        needed = (self.rows * self.columns - 1) * self.stride + 1
        if needed > self.top_k:
            raise ValueError(
                f"top_k {self.top_k} is too small: rows {self.rows} x columns {self.columns} "
                f"at stride {self.stride} need {needed} images: raise top_k, or lower rows, columns or stride"
            )
        return self


class Align(Settings):
    """How an encoder is aligned."""

    mode: Literal["both", "text"] = Field(
        default="both", description="towers that train; `text` alone keeps all image vectors valid"
    )
    num_workers: int = Field(default=1, ge=1, description="number of data-parallel training workers")
    use_gpu: bool = Field(default=False, description="give each worker one GPU")
    epochs: int = Field(default=1, ge=1, le=10_000, description="number of passes over the preferences")
    queries_per_batch: int = Field(
        default=8,
        ge=1,
        le=100_000,
        description="queries that a worker encodes at once, with all their images",
    )
    caption_batch_size: int = Field(
        default=64, ge=1, le=100_000, description="caption pairs in a batch of the contrastive loss L_pt"
    )
    batches_per_step: int = Field(
        default=1,
        ge=1,
        le=10_000,
        description="number of batches of a worker whose gradients make one optimizer step",
    )
    learning_rate: float = Field(default=1e-5, gt=0, description="AdamW's peak learning rate")
    warmup: float = Field(
        default=0.1, ge=0, le=1, description="share of all steps that warm up the learning rate, 0 to 1"
    )
    weight_decay: float = Field(default=0.0, ge=0, description="AdamW's decoupled weight decay")
    objective: Objective = Field(default="dpo", description="preference loss; see docs/objectives.md")
    beta: float = Field(default=1.0, gt=0, description="scale of the rewards in the preference loss")
    target_margin: float = Field(default=0.5, ge=0, description="reward margin that `simpo` aims for")
    pretrain_weight: float = Field(default=1.0, ge=0, description="w_pt: weight of the contrastive loss L_pt")
    max_pairs_per_query: int = Field(
        default=200, ge=1, description="maximum number of preference pairs of one query in a step"
    )
    near_tie_weight: float = Field(
        default=0.5, ge=0, le=1, description="weight of a near tie, 0 to 1; 0 excludes near ties"
    )
    inconsistent_weight: float = Field(
        default=0.5, ge=0, le=1, description="weight of a pair that the judge contradicted in the other order"
    )
    human_weight: float = Field(
        default=1.0, ge=0, description="weight of a pair that a person decided; 0 excludes such pairs"
    )
    evidence_cap: float = Field(
        default=200.0,
        gt=0,
        description="sum of its pairs' weights from which a query has its full weight; below, its weight is "
        "proportional to the sum",
    )
    gradient_clip: float = Field(default=1.0, gt=0, description="largest L2 norm of the gradient")
    seed: int = Field(default=0, ge=0, description="seed of the training order and of sampling")
    pixel_cache_bytes: int = Field(
        default=400_000_000, ge=0, description="size limit of the decoded images in Ray's object store, bytes"
    )


class Index(Settings):
    """When an approximate index is built, and the recall that it must reach."""

    ann_min_rows: int = Field(
        default=50_000,
        ge=1,
        description="number of rows from which an approximate index is built; fewer are searched exactly",
    )
    recall: float = Field(default=0.95, ge=0, le=1, description="recall@10 that the index must reach, 0 to 1")
    num_recall_queries: int = Field(
        default=200, ge=1, description="number of queries that measure recall@10 against exact search"
    )


class Guard(Settings):
    """The recall that alignment may cost: the encoder keeps within it, and promotion checks it."""

    num_captions: int = Field(
        default=256, ge=0, description="maximum number of held-out captions that measure recall; 0 = none"
    )
    max_recall_drop: float = Field(
        default=0.03, ge=0, le=1, description="largest loss of recall@1 and of recall@10, 0 to 1"
    )
    wise_ft_alpha: float | Literal["auto"] = Field(
        default="auto",
        description="a in (1 - a) * parent + a * trained weights (WiSE-FT), 0 to 1; `auto` = the largest "
        "multiple of 0.05 within max_recall_drop",
    )

    @field_validator("wise_ft_alpha", mode="before")
    @classmethod
    def _is_auto_or_a_share(cls, value: Any) -> Any:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if value != "auto" and not (is_number and 0 <= value <= 1):
            raise ValueError("Input should be auto, or a number from 0 to 1")
        return value


class Serve(Settings):
    """The search endpoint."""

    host: str = Field(default="127.0.0.1", description="address to listen on")
    port: int = Field(default=8000, ge=0, le=65535, description="port to listen on; 0 takes any free one")
    num_replicas: int = Field(default=1, ge=1, description="minimum number of replicas")
    max_replicas: int = Field(default=1, ge=1, description="maximum number of replicas, reached under load")
    max_batch_size: int = Field(default=16, ge=1, description="maximum number of queries in a batch")
    batch_wait_s: float = Field(default=0.0, ge=0, description="longest wait for a batch to fill, seconds")
    max_k: int = Field(default=100, ge=1, description="largest k of a request")
    refresh_s: float = Field(
        default=1.0, gt=0, description="time between checks of aliases and tables, seconds"
    )
    experiment_share: float = Field(
        default=0.0, ge=0, le=1, description="share of the clients of `live` that `candidate` answers, 0 to 1"
    )
    teacher: bool = Field(default=True, description="offer the teacher as a system")
    teacher_idle_s: float = Field(
        default=300.0, gt=0, description="idle time after which the teacher's engines stop, seconds"
    )
    max_upload_bytes: int = Field(default=8_000_000, ge=0, description="largest uploaded image file, bytes")
    max_upload_pixels: int = Field(
        default=40_000_000, ge=1, description="maximum number of pixels of an image in a request"
    )
    upload_timeout_s: float = Field(default=5.0, gt=0, description="longest time to read one image, seconds")
    url_images: bool = Field(default=False, description="fetch images that requests name by public URL")
    allow_delete: bool = Field(default=False, description="let `DELETE /v1/images/<id>` remove images")
    keys_file: str | None = Field(
        default=None,
        description="file of API keys, one `name:key` per line, needed to listen beyond this machine; "
        "default: no keys",
    )
    requests_per_minute: int | None = Field(
        default=None,
        ge=1,
        description="maximum number of requests per minute from one key to one replica; without keys, "
        "from one address (behind HAProxy: from all clients); default: no limit",
    )
    log_queries: bool = Field(default=False, description="write the words of queries into the log")

    @model_validator(mode="after")
    def _bounds_in_order(self) -> "Serve":
        if self.max_replicas < self.num_replicas:
            raise ValueError(f"max_replicas {self.max_replicas} is below num_replicas {self.num_replicas}")
        return self


class Profile(Settings):
    """Everything that differs between one laptop and a fleet; the code path is the same."""

    name: str = Field(description="the profile's own name")
    store: str = Field(
        min_length=1, description="LanceDB address of the tables: a local folder, s3:// or gs://"
    )
    ray: Ray = Field(description="where Ray runs, and how large it may become")
    encoder: EncoderModel = Field(description="the two-tower encoder, and the stages that use it")
    rephraser: LanguageModel = Field(description="the language model that rephrases queries")
    judge: LanguageModel = Field(description="the multi-modal language model that rates or compares images")
    label: Label = Field(default_factory=Label, description="how preferences are made")
    align: Align = Field(default_factory=Align, description="how an encoder is aligned")
    index: Index = Field(default_factory=Index, description="when an approximate index is built")
    guard: Guard = Field(default_factory=Guard, description="the recall that alignment may cost")
    serve: Serve = Field(default_factory=Serve, description="the search endpoint")


def profile_names() -> list[str]:
    """Names of the shipped profiles, sorted."""
    return sorted(path.stem for path in PROFILES.glob("*.yaml"))


def load_profile(name_or_path: str, /, **overrides: Any) -> Profile:
    """Load the shipped profile of that name, or the one in that YAML file, and apply the overrides.

    An override is a top-level value (`store="..."`), a nested mapping (`align={"epochs": 1}`, merged) or a
    dotted key (`**{"align.epochs": 1}`). Relative model folders may start at the repository root.

    Raises:
        UserError: no such profile, not YAML, or a field that is unknown, missing or out of range.
    """
    path = _profile_path(name_or_path)
    values = _read(path)
    for key, value in overrides.items():
        values = _merged(values, _nested(key, value))
    for part in ("encoder", "rephraser", "judge"):
        if isinstance(values.get(part), dict) and isinstance(values[part].get("model"), str):
            values[part] = {**values[part], "model": repo_path(values[part]["model"])}
    try:
        return Profile.model_validate(values)
    except ValidationError as error:
        changed = f" with {', '.join(overrides)} changed" if overrides else ""
        raise UserError(f"Profile {path}{changed}: {explain(error, Profile)}") from None


def repo_path(path: str) -> str:
    """The absolute path if `path` exists only relative to the repository root, else `path`. Expands `~`."""
    path = os.path.expanduser(path)
    if os.path.isabs(path) or os.path.exists(path) or not path:
        return path
    candidate = ROOT / path
    return str(candidate) if os.path.exists(candidate) else path


def _profile_path(name_or_path: str) -> Path:
    shipped = PROFILES / f"{name_or_path}.yaml"
    if name_or_path in profile_names():
        return shipped
    path = Path(repo_path(name_or_path))
    if os.path.isfile(path):  # `Path.is_file` raises for a name that is too long
        return path
    raise UserError(
        f"There is no profile {shown(name_or_path)}: give one of {', '.join(profile_names())}, or a "
        "YAML file."
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError, RecursionError, OSError) as error:
        raise UserError(f"Profile {path} cannot be read as YAML: {brief(str(error))}.") from None
    if not isinstance(values, dict):
        raise UserError(f"Profile {path} must be a mapping of settings, not {type(values).__name__}.")
    return values


def _nested(key: str, value: Any) -> dict[str, Any]:
    """`"a.b", 1` -> `{"a": {"b": 1}}`."""
    for part in reversed(key.split(".")):
        value = {part: value}
    return value


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merged(merged[key], value) if both else value
    return merged
