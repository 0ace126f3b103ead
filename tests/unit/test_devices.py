"""Every stage that loads an encoder runs it on the GPUs it reserves, and everything else runs on the CPU."""

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import ray.data
import torch

from actors import encoder as encoder_module
from actors.encoder import Encoder, load_registered, vector_array
from actors.missing_vectors import _same_image_tower
from actors.stages import embed
from cluster.errors import UserError
from cluster.profile import Profile, load_profile
from cluster.tables import EncoderRecord, embeddings_schema, embeddings_table, now
from jobs.align import prepare, train
from jobs.evaluate import language_models, teacher
from jobs.evaluate.config import EvaluateConfig
from jobs.evaluate.systems import EncoderSystem
from jobs.index import job as index
from jobs.index.config import IndexConfig
from jobs.ingest import job as ingest
from jobs.label import prepare as label
from jobs.label.config import LabelConfig
from jobs.promote import job as promote
from jobs.promote.config import PromoteConfig
from serve_app import app
from serve_app.config import ServeConfig
from serve_app.metrics import Metrics
from serve_app.search import systems

ENCODER_GPUS, REPHRASER_GPUS, JUDGE_GPUS = 0.1, 0.4, 0.5


@pytest.fixture
def loads(monkeypatch) -> list[float]:
    """Records `num_gpus` of every encoder that is loaded; each runs on the CPU of this machine."""
    recorded, load = [], Encoder.load

    def recording(model: str, *, num_gpus: float = 0.0, **options: Any) -> Encoder:
        recorded.append(num_gpus)
        return load(model, **options)

    monkeypatch.setattr(Encoder, "load", recording)
    return recorded


@pytest.fixture
def record(store, tiny_encoder_folder) -> EncoderRecord:
    """The tiny encoder as `baseline` and `live` of the store, with one image in its table."""
    encoder = Encoder.load(tiny_encoder_folder)
    record = EncoderRecord(encoder=encoder.fingerprint, checkpoint=tiny_encoder_folder, dim=encoder.dim)
    store.register_encoder(record)
    for alias in ("baseline", "live"):
        store.set_alias(alias, record.encoder)
    texts = dict.fromkeys(("caption", "source"), "")
    row = {
        "image_id": "1",
        **texts,
        "tags": [],
        "width_px": 1,
        "height_px": 1,
        "added_at": now(),
        "aesthetic": 0,
    }
    schema = embeddings_schema(record.dim)
    table = pa.Table.from_pylist([row], schema)
    vectors = vector_array(np.eye(1, record.dim), record.dim)
    table = table.set_column(schema.get_field_index("vector"), schema.field("vector"), vectors)
    store.merge(embeddings_table(record.encoder), table, on=["image_id"])
    return record


@pytest.fixture
def gpu_profile(store, tiny_encoder_folder) -> Profile:
    """`mini` with stages that reserve GPUs."""
    mini = load_profile(
        "mini", store=store.uri, encoder={"model": tiny_encoder_folder}, align={"use_gpu": True}
    )
    gpus = {"encoder": ENCODER_GPUS, "rephraser": REPHRASER_GPUS, "judge": JUDGE_GPUS}
    changes = {}
    for part, num_gpus in gpus.items():
        settings = getattr(mini, part)
        stage = settings.stage.model_copy(update={"num_gpus": num_gpus})
        changes[part] = settings.model_copy(update={"stage": stage})
    return mini.model_copy(update=changes)


@dataclass
class Rows:
    """A dataset that records its stages."""

    stages: dict[str, dict[str, Any]] = field(default_factory=dict)

    def map_batches(self, actor: Any, **options: Any) -> "Rows":
        self.stages[actor.__name__] = {"actor": actor, **options}
        return self

    def repartition(self, **_options: Any) -> "Rows":
        return self

    def reserved(self) -> dict[str, float]:
        return {name: stage["num_gpus"] for name, stage in self.stages.items()}

    def start(self, name: str) -> None:
        """Construct the actor of a stage as Ray Data does."""
        stage = self.stages[name]
        stage["actor"](**stage["fn_constructor_kwargs"])


def test_encoder_runs_on_cuda_only_where_gpus_are_reserved(monkeypatch, tiny_encoder_folder):
    devices = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr("open_clip.create_model", lambda name, device, **_options: devices.append(device))
    for name in ("__init__", "check"):
        monkeypatch.setattr(encoder_module.Encoder, name, lambda *_args, **_options: None)
    for num_gpus in (0, 0.1, 1):
        Encoder.load(tiny_encoder_folder, num_gpus=num_gpus)
    assert devices == ["cpu", "cuda", "cuda"]


def test_reserved_gpu_that_torch_cannot_see_is_an_error(monkeypatch, tiny_encoder_folder):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=r"reserves 0\.1 GPUs.*encoder\.stage\.num_gpus"):
        Encoder.load(tiny_encoder_folder, num_gpus=0.1)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"source": "lmm_score"}, {"Rephrase": REPHRASER_GPUS, "Rerank": JUDGE_GPUS}),
        ({"source": "scorer"}, {"Rephrase": REPHRASER_GPUS, "Rerank": 0}),
        ({"source": "scorer", "semantic": "judge"}, {"Rephrase": REPHRASER_GPUS, "Rerank": JUDGE_GPUS}),
        ({"source": "lmm_pair", "style": "repeat"}, {"Rephrase": 0, "Rerank": JUDGE_GPUS}),
    ],
)
def test_label_reserves_gpus_for_engines_only(
    monkeypatch, gpu_profile, store, record, loads, options, expected
):
    rows = Rows()
    monkeypatch.setattr(label.command, "settings", lambda config: (gpu_profile, store))
    monkeypatch.setattr(ray.data, "from_arrow", lambda blocks: rows)
    label_run = label.prepare_run(LabelConfig(store=gpu_profile.store, **options))
    label_run.written(["a boat"], None)
    assert rows.reserved() == {"Retrieve": 0, "Write": 0, **expected}
    assert sorted(stage.num_gpus for stage in label_run.stages.values()) == sorted(rows.reserved().values())
    rows.start("Retrieve")
    assert loads == [0]


def test_label_encodes_the_prompts_of_its_scorer_on_the_cpu(monkeypatch, gpu_profile, store, record, loads):
    monkeypatch.setattr(label.command, "settings", lambda config: (gpu_profile, store))
    config = LabelConfig(store=gpu_profile.store, source="scorer")
    label.make_scorer(config, label.prepare_run(config))
    assert loads == [0]


def test_embedding_stage_of_ingest_and_index_uses_the_gpus_it_reserves(gpu_profile, loads):
    rows = Rows()
    embed(rows, gpu_profile.encoder)
    rows.start("EncodeImages")
    assert loads == [rows.reserved()["EncodeImages"]] == [ENCODER_GPUS]


def test_drivers_load_encoders_on_the_cpu(monkeypatch, gpu_profile, store, record, loads):
    class Stop(Exception):
        pass

    def stop(*_args: Any) -> None:
        raise Stop

    def settings(config: Any) -> tuple:
        return gpu_profile, store

    for job in (ingest, index, promote):
        monkeypatch.setattr(job.command, "settings", settings)
    monkeypatch.setattr(ingest, "open_source", lambda *_args: None)
    monkeypatch.setattr(ingest.session, "connect", stop)
    monkeypatch.setattr(index, "VectorTable", stop)
    monkeypatch.setattr(promote, "check_table", lambda *_args: 1)
    encoder = load_registered(record)
    with pytest.raises(Stop):
        ingest.run(None)
    with pytest.raises(Stop):
        index.run(IndexConfig(encoder="baseline"))
    promote.run(PromoteConfig(encoder=record.encoder, dry_run=True))
    EncoderSystem(store, record, gpu_profile.encoder, where=None)
    assert _same_image_tower(store, record.encoder, encoder)
    assert loads == [0] * 6


def test_align_encodes_and_trains_on_the_gpus_it_reserves(monkeypatch, gpu_profile, store, record, loads):
    tasks = {}

    def remote(**options: Any):
        tasks.update(options)
        return lambda function: function

    monkeypatch.setattr(prepare.ray, "remote", remote)
    assert prepare.worker_stage(gpu_profile.align).num_gpus == 1
    prepare.query_encoder(Encoder.load(record.checkpoint), record, gpu_profile.align)
    prepare._encode_texts(record.checkpoint, "fp32", ["a boat"])
    assert loads == [0, tasks["num_gpus"]] == [0, 1]


@pytest.mark.parametrize("use_gpu", [False, True])
def test_training_worker_uses_the_gpu_it_reserves(
    monkeypatch, gpu_profile, store, record, loads, tmp_path, use_gpu
):
    class Loaded(Exception):
        pass

    def learner(*_args: Any) -> None:
        raise Loaded

    settings = gpu_profile.align.model_copy(update={"use_gpu": use_gpu})
    model = gpu_profile.encoder.model_copy(update={"model": record.checkpoint})
    run = train.TrainingRun(model, num_steps=1, folder=str(tmp_path), settings=settings)
    monkeypatch.setattr(train, "Learner", learner)
    with pytest.raises(Loaded):
        train.train_worker({"run": run, "guard": None, "images": None})
    assert loads == [prepare.worker_stage(settings).num_gpus] == [use_gpu]


def test_replicas_of_the_server_use_the_gpus_they_reserve(monkeypatch, gpu_profile, store, record, loads):
    monkeypatch.setattr(app, "resolve_profile", lambda config: gpu_profile)
    search = app.build_app(ServeConfig())._bound_deployment
    monkeypatch.setattr(systems, "_taste_axes", lambda *_args: {})
    system = systems.open_system(gpu_profile, store, Metrics(), record.encoder)
    assert system.fingerprint == record.encoder
    assert loads == [search.ray_actor_options["num_gpus"]] == [ENCODER_GPUS]
    engines = {name: engine._bound_deployment for name, engine in app._engines(gpu_profile).items()}
    reserved = {name: engine.ray_actor_options["num_gpus"] for name, engine in engines.items()}
    assert reserved == {"rephraser": REPHRASER_GPUS, "judge": JUDGE_GPUS}


def test_evaluate_reserves_gpus_for_its_engines_only(monkeypatch, gpu_profile, store, record, loads):
    rows, required = Rows(), {}

    def collect(_profile: Profile, stages: dict, build: Any) -> pa.Table:
        required.update({name: stage.num_gpus for name, stage in stages.items()})
        build()
        return pa.table({"query": pa.array([], pa.string()), "rephrase_error": pa.array([], pa.string())})

    monkeypatch.setattr(ray.data, "from_arrow", lambda blocks, **_options: rows)
    monkeypatch.setattr(language_models, "collect", collect)
    inputs = SimpleNamespace(queries=[], captions=SimpleNamespace(texts=[]), voted_pairs=[])
    teacher.retrieve_candidates(EvaluateConfig(), gpu_profile, store, record, inputs)
    questions = language_models.JudgeQuestions(aesthetics=[("a boat", "1")])
    language_models.ask_judge(gpu_profile, store, gpu_profile.judge, questions)
    assert rows.reserved() == {"Rephrase": REPHRASER_GPUS, "Retrieve": 0, "AnswerTasks": JUDGE_GPUS}
    assert sorted(required.values()) == sorted(rows.reserved().values())
    rows.start("Retrieve")
    assert loads == [0]
