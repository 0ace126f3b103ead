"""Nothing runs at import, and imports go one way: jobs and serve_app -> actors -> cluster."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.profile import ROOT

MAY_IMPORT = {
    "cluster": {"cluster"},
    "actors": {"actors", "cluster"},
    "jobs": {"jobs", "actors", "cluster"},
    "serve_app": {"serve_app", "actors", "cluster"},
}
# Inside jobs a verb knows the world, the harness, the machine and what lies beside the verbs; these run other
# verbs, and the evaluation's suite runs whole loops.
EVERY_VERB = {
    "studio", "command", "machine", "table_files", "caption_pairs", "missing_vectors", "stored_pixels",
}  # fmt: skip
RUN_OTHERS = {"demo", "bench", "loop"}
MAY_ALSO = {"evaluate": {"loop"}}

SOURCES = sorted(path for package in MAY_IMPORT for path in (ROOT / package).rglob("*.py"))

# Run in a fresh process: whatever parses the command line, connects or starts Ray or CUDA fails here.
IMPORT_ALL = """
import importlib, json, socket, sys

def refuse(*args, **kwargs):
    raise RuntimeError(f"an import connects to {args[1:]}")

socket.socket.connect = refuse
faults = {}
for name in json.loads(sys.stdin.read()):
    try:
        importlib.import_module(name)
    except BaseException as error:
        faults[name] = repr(error)
def configs(base):
    for config in base.__subclasses__():
        yield config
        yield from configs(config)

from jobs.cli import VERBS, entry
from jobs.command import JobConfig
ray, torch = sys.modules.get("ray"), sys.modules.get("torch")
print(json.dumps({
    "faults": faults,
    "ray_runs": bool(ray and ray.is_initialized()),
    "cuda_runs": bool(torch and torch.cuda.is_initialized()),
    "vllm": "vllm" in sys.modules,
    "no_main": [verb for verb, (module, _) in VERBS.items()
                if not callable(getattr(sys.modules.get(entry(module)), "main", None))],
    "configs": len({config.__module__ for config in configs(JobConfig)}),
    "undescribed": [f"{config.__name__}.{name}" for config in configs(JobConfig)
                    for name, field in config.model_fields.items() if not field.description],
}))
"""


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(tree: ast.AST) -> set[str]:
    """Every module that the code imports anywhere, functions included, as dotted names."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def imported_by(path: Path) -> set[str]:
    return imported(ast.parse(path.read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def imports(tmp_path_factory) -> dict:
    """What importing every module in a fresh process did."""
    tmp_path = tmp_path_factory.mktemp("elsewhere")
    names = [module_name(path) for path in SOURCES]
    assert len(names) > 20
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL, "--an-option-nobody-knows"],
        input=json.dumps(names),
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=True,
    )
    assert list(tmp_path.iterdir()) == [], "an import wrote files"
    return json.loads(done.stdout)  # anything else on stdout was printed by an import


def test_every_module_imports_in_a_fresh_process_and_nothing_runs(imports):
    assert imports["faults"] == {}
    assert not imports["ray_runs"] and not imports["cuda_runs"]
    assert not imports["vllm"], "20 s of imports that only an engine needs"


def test_every_verb_has_an_entry_point_and_every_option_a_description(imports):
    assert imports["no_main"] == []
    assert imports["configs"] >= 8
    assert imports["undescribed"] == []


def test_the_command_starts_without_heavy_imports():
    code = (
        "import sys, jobs.cli; print(sorted({'ray', 'torch', 'vllm', 'lancedb', 'tyro'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_imports_go_one_way(path):
    package = path.relative_to(ROOT).parts[0]
    ours = {name.partition(".")[0] for name in imported_by(path)} & MAY_IMPORT.keys()
    assert ours <= MAY_IMPORT[package]


@pytest.mark.parametrize(
    "path", [path for path in SOURCES if path.is_relative_to(ROOT / "jobs")], ids=module_name
)
def test_a_verb_imports_no_other_verb(path):
    verb = [*module_name(path).split("."), ""][1]
    others = {name.split(".")[1] for name in imported_by(path) if name.startswith("jobs.")}
    assert verb in RUN_OTHERS or others <= EVERY_VERB | MAY_ALSO.get(verb, set()) | {verb}


def test_the_rules_would_see_an_import_hidden_in_a_function():
    assert imported(ast.parse("def f():\n    from jobs.label import run\n    import ray.data\n")) == {
        "jobs.label.run",
        "ray.data",
    }
