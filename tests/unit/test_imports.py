"""The structure of the code: nothing runs at import, imports go one way, every verb has the same shape."""

import ast
import json
import os
import re
import subprocess
import sys
from collections import Counter
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from cluster.profile import ROOT
from jobs.cli import verb_groups

MAY_IMPORT = {
    "cluster": {"cluster"},
    "actors": {"actors", "cluster"},
    "jobs": {"jobs", "actors", "cluster"},
    "serve_app": {"serve_app", "actors", "cluster"},
    "lab": {"lab", "serve_app", "jobs", "actors", "cluster"},
}
# The command line names the packages of all product verbs, the server's too, and imports the one asked for.
COMMAND_LINE = "jobs.cli"
MAX_FILES_PER_FOLDER = 15

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

from jobs.cli import verb_groups
from cluster.command import JobConfig
ray, torch = sys.modules.get("ray"), sys.modules.get("torch")
print(json.dumps({
    "faults": faults,
    "ray_runs": bool(ray and ray.is_initialized()),
    "cuda_runs": bool(torch and torch.cuda.is_initialized()),
    "vllm": "vllm" in sys.modules,
    "no_main": [verb for verbs in verb_groups().values() for verb, (package, _) in verbs.items()
                if not callable(getattr(sys.modules.get(f"{package}.__main__"), "main", None))],
    "configs": len({config.__module__ for config in configs(JobConfig)}),
    "undescribed": [f"{config.__name__}.{name}" for config in configs(JobConfig)
                    for name, field in config.model_fields.items() if not field.description],
}))
"""


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in SOURCES}


def imported(tree: ast.AST) -> set[str]:
    """Dotted names of every module that the code may import, in functions too.

    A string that reads like one of our modules counts: `import_module("lab.demo")` and
    `python -m lab.demo` import it just as well. Docstrings do not count.
    """
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            names |= {node.value} if OUR_MODULE.fullmatch(node.value) else set()
    return names


OUR_MODULE = re.compile(rf"({'|'.join(MAY_IMPORT)})(\.\w+)*(:\w+)?")


def imported_by(path: Path) -> set[str]:
    return imported(ast.parse(path.read_text(encoding="utf-8")))


def module_imported(name: str) -> str | None:
    """The module of this project that contains an imported name, None for a third-party name."""
    parts = name.partition(":")[0].split(".")
    while parts and ".".join(parts) not in MODULES:
        parts.pop()
    return ".".join(parts) or None


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
    allowed = MAY_IMPORT[package] | ({"serve_app"} if module_name(path) == COMMAND_LINE else set())
    ours = {name.partition(".")[0] for name in imported_by(path)} & MAY_IMPORT.keys()
    assert ours <= allowed


@pytest.mark.parametrize(
    "path", [path for path in SOURCES if path.is_relative_to(ROOT / "jobs")], ids=module_name
)
def test_product_verbs_do_not_import_each_other(path):
    if module_name(path) == COMMAND_LINE:
        return
    verb = [*module_name(path).split("."), ""][1]
    others = {name.split(".")[1] for name in imported_by(path) if name.startswith("jobs.")}
    assert others <= {verb}


def test_no_modules_import_each_other_in_a_cycle():
    graph = {
        name: {found for each in imported_by(path) if (found := module_imported(each)) and found != name}
        for name, path in MODULES.items()
    }
    TopologicalSorter(graph).prepare()  # raises CycleError with the modules of a cycle


def test_every_verb_has_config_job_and_main():
    packages = [package for verbs in verb_groups().values() for package, _ in verbs.values()]
    parts = {group: ROOT.joinpath(*group.split(".")) for group in ("lab.bench", "lab.pretrain")}
    folders = [ROOT.joinpath(*package.split(".")) for package in packages if package not in parts]
    folders += [path.parent for group in parts.values() for path in group.glob("*/__main__.py")]
    assert len(folders) == len(packages) - len(parts) + 8
    incomplete = {
        str(folder.relative_to(ROOT))
        for folder in folders
        if not all((folder / f"{name}.py").is_file() for name in ("config", "job", "__main__"))
    }
    assert incomplete == set()


def test_no_folder_holds_too_many_files():
    count = Counter(path.parent.relative_to(ROOT) for path in SOURCES)
    assert {str(folder): num for folder, num in count.items() if num > MAX_FILES_PER_FOLDER} == {}


@pytest.mark.parametrize(
    ("code", "names"),
    [
        (
            "def f():\n    from jobs.label import run\n    import ray.data\n",
            {"jobs.label.run", "ray.data"},
        ),
        ("import_module('lab.demo')", {"lab.demo"}),
        ("command = ['python', '-m', 'lab.bench']", {"lab.bench"}),
        ("path = 'serve_app.app:build_app'", {"serve_app.app:build_app"}),
        ("text = 'the lab. And more'", set()),
    ],
)
def test_hidden_imports_are_found(code, names):
    assert imported(ast.parse(code)) == names
