"""What `cluster.compat` assumes of Ray, LanceDB, Lance and vLLM, checked against the installed releases.

A failure here after an upgrade means that the library has changed: adapt the function of `cluster.compat`
that the message names.
"""

import ast
import datetime
import inspect
import io
from collections.abc import Iterator
from pathlib import Path

import lance
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from actors.engine import VLLM_ENVIRONMENT
from cluster.compat import errors, pillow, ray_core
from cluster.profile import ROOT
from cluster.tables import SCHEMAS, Store, now


def some_rows() -> pa.Table:
    row = {"uri": "a", "stage": "decode", "error": "truncated", "at": now()}
    return pa.Table.from_pylist([row], SCHEMAS["rejects"])


def source_of(module: str) -> str:
    """Source of a module of Ray, which is not imported."""
    import ray

    return Path(ray.__file__).parent.joinpath(*module.split(".")[1:]).with_suffix(".py").read_text()


# --- Lance and LanceDB


def test_lance_conflict_between_two_commits_is_recognised(store):
    store.merge("rejects", some_rows(), on=["uri"])
    table = store.open("rejects").to_lance()
    fragments = [fragment.fragment_id for fragment in table.get_fragments()]
    deletion = lance.LanceOperation.Delete([], fragments, "true")
    lance.LanceDataset.commit(table.uri, deletion, read_version=table.version)
    with pytest.raises(OSError) as conflict:
        lance.LanceDataset.commit(table.uri, deletion, read_version=table.version)
    assert errors.is_commit_conflict(conflict.value), f"is_commit_conflict: Lance says {conflict.value}"


def test_other_write_errors_are_no_conflict(store):
    store.merge("rejects", some_rows(), on=["uri"])
    with pytest.raises((ValueError, RuntimeError, OSError)) as invalid:
        store.open("rejects").delete("no_such_column = 1")
    assert not errors.is_commit_conflict(invalid.value), f"is_commit_conflict: LanceDB says {invalid.value}"


def test_lancedb_error_for_a_missing_table_is_recognised(store):
    with pytest.raises(ValueError) as missing:
        store.database.open_table("rejects")
    assert errors.is_missing_table(missing.value), f"is_missing_table: LanceDB says {missing.value}"
    with pytest.raises(ValueError) as invalid:
        store.database.open_table("no/such name")
    assert not errors.is_missing_table(invalid.value), f"is_missing_table: LanceDB says {invalid.value}"


@pytest.mark.filterwarnings("ignore:optimize")
def test_lance_error_for_files_of_a_cleaned_up_version_is_recognised(store: Store):
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(np.ones(4, np.float32)), 2)
    store.merge("vectors", pa.table({"image_id": ["a", "b"], "vector": vectors}), on=["image_id"])
    stale = store.open("vectors")
    table = store.open("vectors")
    table.delete("image_id = 'a'")
    table.optimize(cleanup_older_than=datetime.timedelta(0), delete_unverified=True)
    with pytest.raises(RuntimeError) as gone:
        stale.search(np.ones(2, np.float32)).to_arrow()
    assert errors.is_missing_file(gone.value), f"is_missing_file: LanceDB says {gone.value}"


# --- Ray


def test_ray_still_says_that_a_node_timed_out_during_startup():
    from ray._private.node import Node

    texts = [text for text in Node.__init__.__code__.co_consts if isinstance(text, str)]
    timeouts = [text for text in texts if errors.is_start_timeout(Exception(text))]
    assert timeouts, "is_start_timeout: ray._private.node.Node has another text"
    assert "raylet_start_wait_time_s = 30" in inspect.getsource(Node), (
        "is_start_timeout: is it a setting now?"
    )


def test_ray_jobs_still_say_that_no_agent_is_available():
    lines = source_of("ray.dashboard.modules.job.job_head").splitlines()
    refusals = [line for line in lines if errors.is_agent_missing(RuntimeError(line))]
    assert refusals, "is_agent_missing: ray.dashboard.modules.job.job_head has another text"


def test_ray_marks_the_driver_of_a_job_with_the_same_variable(monkeypatch):
    from ray._private.runtime_env.constants import RAY_JOB_CONFIG_JSON_ENV_VAR

    monkeypatch.delenv(RAY_JOB_CONFIG_JSON_ENV_VAR, raising=False)
    assert not ray_core.in_submitted_job()
    monkeypatch.setenv(RAY_JOB_CONFIG_JSON_ENV_VAR, "{}")
    assert ray_core.in_submitted_job(), f"in_submitted_job: the variable is {RAY_JOB_CONFIG_JSON_ENV_VAR}"
    supervisor = source_of("ray.dashboard.modules.job.job_supervisor")
    assert "RAY_JOB_CONFIG_JSON_ENV_VAR: json.dumps(" in supervisor, "in_submitted_job: no longer set"


# --- vLLM


def test_vllm_knows_every_environment_variable_that_we_set():
    from vllm import envs

    unknown = VLLM_ENVIRONMENT.keys() - envs.environment_variables.keys()
    assert not unknown, f"actors.engine.VLLM_ENVIRONMENT: vLLM has no {', '.join(unknown)}"


# --- the rest of the code

COMPAT = ROOT / "cluster" / "compat"
SOURCES = [
    path
    for package in ("cluster", "actors", "jobs", "serve_app", "lab")
    for path in (ROOT / package).rglob("*.py")
    if not path.is_relative_to(COMPAT)
]
DOCUMENTED = {"_exit", "_asdict", "_replace"}  # of `os` and of named tuples


def private_uses(tree: ast.AST) -> Iterator[str]:
    """Private names of other modules, and errors recognised by their text."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            names = [*(node.module or "").split("."), *(alias.name for alias in node.names)]
            yield from (name for name in names if name.startswith("_") and not name.startswith("__"))
        elif isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__"):
            owner = node.value.id if isinstance(node.value, ast.Name) else ""
            if owner not in ("self", "cls") and node.attr not in DOCUMENTED:
                yield ast.unparse(node)
        elif isinstance(node, ast.Compare) and ast.unparse(node.comparators[0]) in ("str(error)", "str(e)"):
            yield ast.unparse(node)


def test_only_compat_uses_private_parts_of_libraries():
    assert len(SOURCES) > 100
    uses = {path: list(private_uses(ast.parse(path.read_text(encoding="utf-8")))) for path in SOURCES}
    assert {str(path.relative_to(ROOT)): found for path, found in uses.items() if found} == {}


@pytest.mark.parametrize(
    "code",
    [
        "from ray._private import node",
        "from ray.serve.context import _get_global_client",
        "serve.context._get_global_client()",
        "'was not found' in str(error)",
    ],
)
def test_private_uses_are_found(code):
    assert list(private_uses(ast.parse(code)))


# --- Pillow


def test_pillow_no_longer_reads_the_resolution_of_a_jpeg(monkeypatch):
    def read(image: JpegImageFile) -> None:
        raise IndexError("as for a resolution of the type BYTE")

    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "JPEG")
    monkeypatch.setattr(JpegImageFile, "_read_dpi_from_exif", read)
    with pytest.raises(Image.UnidentifiedImageError):
        Image.open(buffer)
    pillow.ignore_resolution()
    assert Image.open(buffer).size == (8, 8), "ignore_resolution: Pillow reads it elsewhere"
