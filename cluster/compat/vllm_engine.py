"""vLLM's offline `LLM` in this process."""

import ast
import importlib
import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def argument_names() -> set[str]:
    """The arguments that `vllm.LLM` takes, read from its source, because importing it takes 20 s.

    It takes those of its constructor, and passes all others to `EngineArgs`, which has a field for each.
    """
    package = importlib.util.find_spec("vllm")
    if package is None or package.origin is None:
        return set()
    folder = Path(package.origin).parent
    arguments = _class(folder / "engine" / "arg_utils.py", "EngineArgs").body
    names = {ast.unparse(node.target) for node in arguments if isinstance(node, ast.AnnAssign)}
    for node in _class(folder / "entrypoints" / "llm.py", "LLM").body:
        if isinstance(node, ast.FunctionDef) and node.name == "__init__":
            names |= {argument.arg for argument in node.args.kwonlyargs}
    return names


def _class(path: Path, name: str) -> ast.ClassDef:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name)


def abort_all(llm: Any) -> None:
    """Drop the requests of a call that raised.

    vLLM keeps those that it had accepted, and the next call would wait for them and return their outputs.
    """
    engine = llm.llm_engine
    engine.abort_request(list(engine.output_processor.request_states), internal=True)


@contextmanager
def removed_rendezvous() -> Iterator[None]:
    """Remove the rendezvous file of an engine once it has loaded.

    vLLM makes `/tmp/vllm_dist_<random>` even for one process, and leaves it behind if the process is killed,
    as actors are.
    """
    uniproc_executor: Any = importlib.import_module("vllm.v1.executor.uniproc_executor")
    make = uniproc_executor.get_file_store_init_method
    made: list[str] = []

    def recorded() -> str:
        made.append(make())
        return made[-1]

    uniproc_executor.get_file_store_init_method = recorded
    try:
        yield
    finally:
        uniproc_executor.get_file_store_init_method = make
        for address in made:
            Path(address.removeprefix("file://")).unlink(missing_ok=True)
