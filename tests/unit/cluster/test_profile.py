"""Profiles: every shipped one loads, and a wrong one is refused with a sentence that says what is allowed."""

import re

import pytest
import yaml
from pydantic import BaseModel, ValidationError

from cluster import profile as profiles
from cluster.errors import UserError
from cluster.profile import PROFILES, Profile, load_profile, profile_names, repo_path


@pytest.fixture
def mini_values() -> dict:
    return yaml.safe_load((PROFILES / "mini.yaml").read_text())


def write_profile(tmp_path, values) -> str:
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump(values))
    return str(path)


def test_mini_gpu_and_fleet_are_shipped():
    assert profile_names() == ["fleet", "gpu", "mini"]


@pytest.mark.parametrize("name", ["mini", "gpu", "fleet"])
def test_shipped_profile_loads_and_shows_a_command_that_uses_it(name):
    loaded = load_profile(name)
    assert loaded.name == name
    head = (PROFILES / f"{name}.yaml").read_text().splitlines()[:4]
    assert any(line.startswith("#   kallos ") and f"--profile {name}" in line for line in head)


def test_mini_profile_has_the_values_of_the_method_and_needs_no_network_or_gpu():
    mini = load_profile("mini")
    assert (mini.label.top_k, mini.label.rows, mini.label.columns, mini.label.stride) == (100, 5, 5, 4)
    assert (mini.align.beta, mini.align.pretrain_weight, mini.align.num_workers) == (1.0, 1.0, 2)
    assert all("models/mini/" in model.model for model in (mini.encoder, mini.rephraser, mini.judge))
    assert all(stage.num_gpus == 0 for stage in (mini.encoder.stage, mini.rephraser.stage, mini.judge.stage))


def test_every_field_has_a_description_and_a_field_without_value_says_what_happens():
    def settings(model: type[BaseModel]):
        yield model
        for field in model.model_fields.values():
            if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
                yield from settings(field.annotation)

    seen = list(settings(Profile))
    assert len(seen) > 8
    for model in seen:
        for name, field in model.model_fields.items():
            assert field.description, f"{model.__name__}.{name}"
            assert (field.default is None) == ("; default: " in field.description), f"{model.__name__}.{name}"


def test_a_value_that_is_not_set_is_none():
    gpu = load_profile("gpu")
    assert gpu.ray.num_cpus is gpu.ray.max_cpus is gpu.encoder.num_threads is gpu.serve.keys_file is None
    for field in ("ray.num_cpus", "encoder.num_threads", "judge.image_px", "serve.requests_per_minute"):
        with pytest.raises(UserError, match=rf"{re.escape(field)} = 0: .*greater than or equal to 1"):
            load_profile("gpu", **{field: 0})


def test_overrides_merge_nested_mappings_and_dotted_keys():
    loaded = load_profile(
        "mini", **{"align.epochs": 7, "serve.port": 9000}, store="elsewhere", label={"rows": 2}
    )
    assert (loaded.align.epochs, loaded.serve.port, loaded.store) == (7, 9000, "elsewhere")
    assert (loaded.label.rows, loaded.label.columns, loaded.align.num_workers) == (2, 5, 2)


def test_a_profile_is_frozen():
    with pytest.raises(ValidationError):
        load_profile("mini").store = "other"


def test_profile_is_read_from_the_path_of_a_file(tmp_path, mini_values):
    mini_values["name"] = "own"
    assert load_profile(write_profile(tmp_path, mini_values)).name == "own"


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ({"align.epoch": 3}, ["mini.yaml with align.epoch changed: ", "did you mean align.epochs?"]),
        ({"aling": {"epochs": 3}}, ["aling is unknown: did you mean align?"]),
        ({"beta": 2}, ["beta is unknown: did you mean align.beta?"]),
        ({"epoch": 2}, ["epoch is unknown: did you mean align.epochs?"]),
        ({"label.beta": 2}, ["label.beta is unknown: did you mean align.beta?"]),
        ({"judge.stage.batch": 2}, ["judge.stage.batch is unknown: did you mean judge.stage.batch_size?"]),
        ({"guard.xyz": 2}, ["choose one of num_captions, max_recall_drop, wise_ft_alpha."]),
        ({"serve.port": 70000}, ["serve.port = 70000", "65535"]),
        ({"label.style": "haiku"}, ["label.style = 'haiku'", "kw_dict"]),
        ({"encoder.stage.num_cpus": "two"}, ["encoder.stage.num_cpus = 'two'", "number"]),
        ({"label.top_k": 50}, ["label", "top_k 50", "97"]),
        ({"align.learning_rate": float("nan")}, ["align.learning_rate = nan"]),
        ({"align.learning_rate": float("inf")}, ["align.learning_rate = inf", "finite"]),
        ({"serve.batch_wait_s": float("inf")}, ["serve.batch_wait_s = inf", "finite"]),
        ({"align.epochs": True}, ["align.epochs = True", "not true or false"]),
        ({"align.beta": True}, ["align.beta = True", "not true or false"]),
        ({"align.epochs": 10**9}, ["align.epochs = 1000000000", "10000"]),
        ({"align.seed": 10**30}, ["align.seed = 1000000000", "less than 2^63"]),
        ({"ray.num_cpus": 10**30}, ["ray.num_cpus = 1000000000", "less than 2^63"]),
        ({"store": ""}, ["store = ''", "at least 1 character"]),
        (
            {"judge.stage": {"min_actors": 4, "max_actors": 2}},
            ["judge.stage", "max_actors 2", "min_actors 4"],
        ),
    ],
)
def test_wrong_field_is_named_with_its_value_and_what_is_allowed(override, words):
    with pytest.raises(UserError) as caught:
        load_profile("mini", **override)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_misspelt_key_of_a_file_names_its_nearest_neighbour(tmp_path, mini_values):
    mini_values["serve"]["max_bach_size"] = 8
    with pytest.raises(UserError, match=r"own\.yaml: serve\.max_bach_size .* serve\.max_batch_size\?"):
        load_profile(write_profile(tmp_path, mini_values))


def test_missing_field_is_named(tmp_path, mini_values):
    del mini_values["judge"]["max_tokens"]
    with pytest.raises(UserError, match=r"judge\.max_tokens: Field required"):
        load_profile(write_profile(tmp_path, mini_values))


def test_unknown_profile_is_refused_with_the_names_that_exist():
    with pytest.raises(UserError, match=r"'midi'.*fleet, gpu, mini"):
        load_profile("midi")


@pytest.mark.parametrize("text", ["a: [1", "- 1\n- 2\n", "", "[" * 3000, f"a: {'9' * 5000}", "a: \0"])
def test_file_without_a_mapping_is_refused(tmp_path, text):
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=r"broken\.yaml"):
        load_profile(str(path))


def test_repo_path_finds_the_repository_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert repo_path("cluster/profiles/mini.yaml") == str(PROFILES / "mini.yaml")
    (tmp_path / "cluster").mkdir()
    assert repo_path("cluster") == "cluster", "the current folder comes first"
    assert repo_path("Qwen/Qwen2.5-7B-Instruct") == "Qwen/Qwen2.5-7B-Instruct"
    assert repo_path(str(tmp_path)) == str(tmp_path)
    assert profiles.ROOT.joinpath("pyproject.toml").is_file()
