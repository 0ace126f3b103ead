"""Profiles: one typed object that says which models, how many resources and where data lies.

A profile is a YAML file of the shape of `Profile`; `mini`, `gpu` and `fleet` lie in `cluster/profiles/`.

    profile = load_profile("mini", store="/data/store")
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from cluster.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
PROFILES = Path(__file__).resolve().parent / "profiles"


Objective = Literal["dpo", "ipo", "hinge", "simpo", "kto", "rank_dpo", "plackett_luce"]


class Settings(BaseModel):
    """A frozen group of settings that refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Ray(Settings):
    """Where Ray runs, and how large it may become."""

    address: str = Field(description='"local" = start one here, "auto" = join one here, or host:port')
    num_cpus: int = Field(ge=0, description="logical CPUs declared when started here, 0 = the machine's")
    object_store_bytes: int = Field(
        ge=80_000_000, description="shared memory when Ray is started here, bytes"
    )
    log_to_driver: bool = Field(False, description="show what worker processes print")
    max_cpus: float = Field(0, ge=0, description="CPUs that the autoscaler may grow to, 0 = it does not grow")
    max_gpus: float = Field(0, ge=0, description="GPUs that the autoscaler may grow to, 0 = it does not grow")


class Stage(Settings):
    """The resources of one stage of a pipeline: a pool of equal actors."""

    min_actors: int = Field(1, ge=1, description="actors that must run, a count")
    max_actors: int = Field(1, ge=1, description="actors that the stage may grow to, a count")
    num_cpus: float = Field(1.0, ge=0, description="logical CPUs per actor")
    num_gpus: float = Field(0.0, ge=0, description="GPUs per actor, fractions share one")
    batch_size: int = Field(64, ge=1, description="rows per call")

    @model_validator(mode="after")
    def _bounds_in_order(self) -> "Stage":
        if self.max_actors < self.min_actors:
            raise ValueError(f"max_actors {self.max_actors} is below min_actors {self.min_actors}")
        return self


class EncoderModel(Settings):
    """The two-tower encoder, and the stages that decode and embed images."""

    model: str = Field(description='an open_clip folder, "hf-hub:..." name or "architecture/pretrained-tag"')
    precision: Literal["fp32", "bf16"] = Field("fp32", description="number format of the forward pass")
    num_threads: int = Field(0, ge=0, description="torch threads per actor, 0 = torch's own choice")
    stage: Stage = Field(description="actors that embed")
    decode: Stage = Field(description="tasks or actors that decode and check image files")


class LanguageModel(Settings):
    """A language model, or a multi-modal one, and the engine that hosts it."""

    model: str = Field(description="a Hugging Face folder or hub name")
    engine: Literal["vllm_offline"] = Field("vllm_offline", description="which engine hosts the model")
    engine_args: dict[str, Any] = Field(default_factory=dict, description="passed to the engine as they are")
    max_tokens: int = Field(ge=1, description="tokens an answer may have")
    temperature: float = Field(0.0, ge=0, description="sampling temperature, 0 = greedy")
    image_px: int = Field(0, ge=0, description="longer side of images in a prompt, pixels, 0 = as they are")
    stage: Stage = Field(description="actors that hold one engine each")


class Label(Settings):
    """How preferences are made; the names are those of the method."""

    style: Literal["original", "repeat", "detail", "k_list", "kw_dict", "reorg"] = Field(
        "kw_dict", description="how the language model rephrases a query"
    )
    source: Literal["scorer", "lmm_score", "lmm_pair"] = Field(
        "lmm_score", description="what orders by beauty"
    )
    semantic: Literal["encoder", "judge"] = Field(
        "judge", description="what tells how well an image answers: the reference encoder or the judge"
    )
    top_k: int = Field(100, ge=2, description="K: images retrieved for a rephrased query")
    rows: int = Field(5, ge=1, description="u: rows of the partial order")
    columns: int = Field(5, ge=1, description="v: images in a row of the partial order")
    stride: int = Field(4, ge=1, description="every stride-th image of the semantic order is taken")
    min_accuracy: float = Field(3.0, ge=1, le=5, description="accuracy below it is off the query, 1 to 5")

    @model_validator(mode="after")
    def _grid_fits(self) -> "Label":
        needed = (self.rows * self.columns - 1) * self.stride + 1
        if needed > self.top_k:
            raise ValueError(
                f"top_k {self.top_k} is too small: rows {self.rows} x columns {self.columns} "
                f"at stride {self.stride} need {needed} images"
            )
        return self


class Align(Settings):
    """How an encoder is aligned."""

    mode: Literal["both", "text"] = Field("both", description="which towers learn")
    num_workers: int = Field(1, ge=1, description="data-parallel training workers")
    use_gpu: bool = Field(False, description="one GPU per worker")
    epochs: int = Field(1, ge=1, description="passes over the preferences")
    queries_per_batch: int = Field(8, ge=1, description="queries per batch, which a worker encodes at once")
    caption_batch_size: int = Field(64, ge=1, description="caption pairs of L_pt per batch")
    batches_per_step: int = Field(1, ge=1, description="batches per worker whose gradients make one step")
    learning_rate: float = Field(1e-5, gt=0, description="AdamW's peak step size")
    warmup: float = Field(0.1, ge=0, le=1, description="share of all steps in which the step size rises")
    weight_decay: float = Field(0.0, ge=0, description="AdamW's decoupled decay")
    objective: Objective = Field("dpo", description="the preference loss: see `jobs/align/objectives.py`")
    beta: float = Field(1.0, gt=0, description="scale of the rewards in the preference loss")
    target_margin: float = Field(
        0.5, ge=0, description="reward by which `simpo` wants the better image ahead"
    )
    pretrain_weight: float = Field(1.0, ge=0, description="w_pt: weight of the contrastive loss L_pt")
    max_pairs_per_query: int = Field(200, ge=1, description="preference pairs of a query used in a step")
    near_tie_weight: float = Field(
        0.5, ge=0, le=1, description="weight of a pair whose p_winner is next to one half, 0 = left out"
    )
    inconsistent_weight: float = Field(
        0.5, ge=0, le=1, description="weight of a pair that the judge contradicted in the other order"
    )
    human_weight: float = Field(
        1.0, ge=0, description="weight of a pair that a person gave, among its query's others, 0 = left out"
    )
    gradient_clip: float = Field(1.0, gt=0, description="largest L2 norm of the gradient")
    seed: int = Field(0, ge=0, description="seed of order and sampling")
    pixel_cache_bytes: int = Field(
        400_000_000, ge=0, description="decoded images kept in Ray's object store if they fit, bytes"
    )


class Index(Settings):
    """When an approximate index is built, and how well it must find."""

    ann_min_rows: int = Field(50_000, ge=1, description="rows from which an ANN index is built, else exact")
    recall: float = Field(0.95, ge=0, le=1, description="recall@10 that its settings must reach, 0 to 1")
    num_recall_queries: int = Field(200, ge=1, description="queries that measure recall@10 against exact")


class Guard(Settings):
    """What alignment may cost ordinary retrieval: beyond it training stops, and nothing is promoted."""

    num_captions: int = Field(
        256, ge=0, description="caption pairs held out to measure recall@10 after every epoch, 0 = none"
    )
    max_recall_drop: float = Field(0.03, ge=0, le=1, description="recall@10 that may be lost, 0 to 1")
    wise_ft_alpha: float = Field(
        1.0, ge=0, le=1, description="a in (1 - a) theta_ref + a theta, 1 = as trained"
    )


class Serve(Settings):
    """The search endpoint."""

    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8000, ge=1, le=65535, description="port to listen on")
    num_replicas: int = Field(1, ge=1, description="copies of the search deployment at least")
    max_replicas: int = Field(1, ge=1, description="copies that it may grow to when many search")
    max_batch_size: int = Field(16, ge=1, description="queries encoded together, and searched together")
    batch_wait_s: float = Field(0.0, ge=0, description="seconds a batch waits to fill, 0 = starts at once")
    max_k: int = Field(100, ge=1, description="largest k a request may ask for")
    refresh_s: float = Field(1.0, gt=0, description="seconds between looks at aliases and tables")
    experiment_share: float = Field(
        0.0, ge=0, le=1, description="share of clients of `live` that `candidate` answers, 0 = no experiment"
    )
    teacher: bool = Field(True, description="offer the cascade of rephraser and judge as a system")
    teacher_idle_s: float = Field(300.0, gt=0, description="seconds without a question that end its engines")
    max_upload_bytes: int = Field(8_000_000, ge=0, description="largest image file in a request, bytes")
    max_upload_pixels: int = Field(40_000_000, ge=1, description="most pixels of an image in a request")
    upload_timeout_s: float = Field(5.0, gt=0, description="seconds that reading one image may take")
    url_images: bool = Field(False, description="fetch images that a request names by their public URL")
    allow_delete: bool = Field(False, description="let DELETE /v1/images/<id> remove images")
    keys_file: str = Field(
        "", description="file of API keys, `name:key` a line; needed to listen beyond this machine"
    )
    requests_per_minute: int = Field(
        0,
        ge=0,
        description="requests of one key a minute and replica, 0 = no limit; without keys those of one "
        "address, and behind HAProxy all have the same",
    )
    log_queries: bool = Field(False, description="write the words of queries into the log")

    @model_validator(mode="after")
    def _bounds_in_order(self) -> "Serve":
        if self.max_replicas < self.num_replicas:
            raise ValueError(f"max_replicas {self.max_replicas} is below num_replicas {self.num_replicas}")
        return self


class Profile(Settings):
    """Everything that differs between one laptop and a fleet; the code path is the same."""

    name: str = Field(description="the profile's own name")
    store: str = Field(description="LanceDB address of the tables: a local folder, s3:// or gs://")
    ray: Ray = Field(description="where Ray runs")
    encoder: EncoderModel = Field(description="the two-tower encoder")
    rephraser: LanguageModel = Field(description="the language model that rephrases queries")
    judge: LanguageModel = Field(description="the multi-modal model that judges images")
    label: Label = Field(default_factory=Label, description="how preferences are made")
    align: Align = Field(default_factory=Align, description="how an encoder is aligned")
    index: Index = Field(default_factory=Index, description="when an ANN index is built")
    guard: Guard = Field(default_factory=Guard, description="what may be promoted")
    serve: Serve = Field(default_factory=Serve, description="the search endpoint")


def profile_names() -> list[str]:
    """Names of the shipped profiles, sorted."""
    return sorted(path.stem for path in PROFILES.glob("*.yaml"))


def load_profile(name_or_path: str, **overrides: Any) -> Profile:
    """The shipped profile of that name, or the one in that YAML file, with `overrides` laid over it.

    An override is a top-level value (`store="..."`), a nested mapping (`align={"epochs": 1}`, merged) or a
    dotted key (`**{"align.epochs": 1}`). Local model folders are found from the repository root as well.

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
        raise UserError(f"Profile {path}: {explain(error)}") from None


def repo_path(path: str) -> str:
    """A relative path that exists only from the repository root, made absolute; hub names unchanged."""
    if os.path.isabs(path) or os.path.exists(path) or not path:
        return path
    candidate = ROOT / path
    return str(candidate) if candidate.exists() else path


def explain(error: ValidationError) -> str:
    """One sentence for a pydantic error: each field, its value and what is allowed."""
    parts = []
    for item in error.errors():
        field = ".".join(str(part) for part in item["loc"]) or "the whole"
        message = item["msg"].removeprefix("Value error, ")
        parts.append(
            f"{field}: {message}" if item["type"] == "missing" else f"{field} = {item['input']!r}: {message}"
        )
    return "; ".join(parts) + "."


def _profile_path(name_or_path: str) -> Path:
    shipped = PROFILES / f"{name_or_path}.yaml"
    if name_or_path in profile_names():
        return shipped
    path = Path(repo_path(name_or_path))
    if path.is_file():
        return path
    raise UserError(
        f"There is no profile {name_or_path!r}: give one of {', '.join(profile_names())}, or a YAML file."
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"Profile {path} is not valid YAML: {error}.") from None
    if not isinstance(values, dict):
        raise UserError(f"Profile {path} must hold a mapping of settings, not {type(values).__name__}.")
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
