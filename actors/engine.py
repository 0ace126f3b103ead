"""Batch engines that host a language model or a language-and-vision model behind one small interface.

`Engine.generate(requests)` returns one reply per request, in order. A fault of one request (a prompt too
long, a broken image, an answer choice that is not one token) is a value in its reply. `generate_or_exit`
also finds a request on which the engine raises or its process dies, and gives it an error.
The engine is vLLM's offline `LLM` in this process. To add another one (ray.data.llm, a remote endpoint),
write a class with the same method and list it in `ENGINES`.
"""

import difflib
import hashlib
import importlib.util
import json
import math
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, cast
from weakref import WeakKeyDictionary, WeakSet

from huggingface_hub import HfApi, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError
from PIL import Image
from safetensors import safe_open

from actors import in_flight
from cluster.compat import vllm_engine
from cluster.compat.errors import first_cause
from cluster.errors import UserError
from cluster.files import require_regular
from cluster.profile import LanguageModel, repo_path

# The engine runs in the actor's own process: on small machines it starts in a quarter of the time and runs 2
# to 3 times faster than in vLLM's default second process. Variables that are already set take precedence.
VLLM_ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
}
# Without `disable_any_whitespace` a tiny model fills its whole length limit with spaces between JSON tokens.
# llguidance writes JSON without spaces; xgrammar 0.2.8 would put one after each comma and colon, and cannot
# compile bounded patterns.
STRUCTURED_OUTPUTS = {"backend": "guidance", "disable_any_whitespace": True}
HUB_TIMEOUT_S = 10.0
# Identifies weights without reading gigabytes: training changes the first and last megabyte of every file.
EDGE_BYTES = 1 << 20


@dataclass(frozen=True)
class Request:
    """One chat to answer.

    messages: chat turns {"role", "content"}; content is a string or a list of {"type": "text", "text"} and
        {"type": "image"} parts, one image part for each of `images`, in order.
    images: RGB images.
    schema: JSON schema of the answer (compact, no whitespace); None for free text.
    choices: single-token answers; the reply has their probabilities and is one of them.
    max_tokens: maximum number of tokens to generate; 0 = the engine's own limit.
    """

    messages: Sequence[Mapping[str, Any]]
    images: tuple[Image.Image, ...] = ()
    schema: Mapping[str, Any] | None = None
    choices: tuple[str, ...] = ()
    max_tokens: int = 0


@dataclass(frozen=True)
class Reply:
    """The answer to one request.

    finish_reason: "stop" (complete), "length" (cut at max_tokens: JSON will not parse), "" on error.
    choice_probs: probability of each choice, normalised over the choices; empty for requests without choices.
    error: one sentence, "" when there is none.
    """

    text: str = ""
    finish_reason: str = ""
    choice_probs: dict[str, float] = field(default_factory=dict)
    error: str = ""


class Engine(Protocol):
    """Answers batches of requests."""

    def generate(self, requests: Sequence[Request]) -> list[Reply]:
        """One reply for each request, in the same order."""
        ...


class VllmOffline:
    """vLLM's offline `LLM` in this process.

    model: local folder or hub name. engine_args: passed to `vllm.LLM`; they override our defaults.
    max_tokens, temperature: for requests that set none.
    """

    def __init__(
        self,
        *,
        model: str,
        engine_args: Mapping[str, Any] | None = None,
        max_tokens: int = 128,
        temperature: float = 0.0,
    ):
        for name, value in VLLM_ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        # Imported here because the import takes 20 s and reads the environment set above.
        from vllm import LLM
        from vllm.exceptions import VLLMClientError

        self._refusals = (VLLMClientError, ValueError, TypeError, OSError)
        arguments = {"structured_outputs_config": dict(STRUCTURED_OUTPUTS), **(engine_args or {})}
        with vllm_engine.removed_rendezvous():
            self.llm = LLM(model=model, **arguments)
        self.max_tokens = max_tokens
        self.temperature = temperature

    def generate(self, requests: Sequence[Request]) -> list[Reply]:
        """Answer in one engine batch; a request that vLLM refuses gets an error as its reply."""
        replies: dict[int, Reply] = {}
        valid: list[int] = []
        for index, request in enumerate(requests):
            error = self._refusal(request)
            if error:
                replies[index] = Reply(error=error)
            else:
                valid.append(index)
        answered = halved(self._chat, [requests[index] for index in valid], self._refusals)
        replies.update(zip(valid, answered, strict=True))
        return [replies[index] for index in range(len(requests))]

    def _chat(self, requests: Sequence[Request]) -> list[Reply]:
        try:
            outputs = self.llm.chat(
                [cast(Any, conversation(request)) for request in requests],
                sampling_params=[self.sampling(request) for request in requests],
                use_tqdm=False,
            )
        except Exception:
            vllm_engine.abort_all(self.llm)
            raise
        return [self._reply(request, output) for request, output in zip(requests, outputs, strict=True)]

    def _refusal(self, request: Request) -> str:
        """Why the request cannot be sent, "" if it can."""
        for choice in request.choices:
            if len(self._token_ids(choice)) != 1:
                return f"the choice {choice!r} is not a single token of this model"
        return ""

    def _token_ids(self, text: str) -> list[int]:
        return self.llm.get_tokenizer().encode(text, add_special_tokens=False)

    def _choice_ids(self, request: Request) -> list[int]:
        return [self._token_ids(choice)[0] for choice in request.choices]

    def sampling(self, request: Request):
        """vLLM's sampling parameters for a request."""
        from vllm import SamplingParams
        from vllm.sampling_params import StructuredOutputsParams

        if request.choices:
            ids = self._choice_ids(request)
            # logprob_token_ids gives the model's own probabilities, before allowed_token_ids masks the rest.
            return SamplingParams(
                temperature=0.0, max_tokens=1, logprob_token_ids=ids, allowed_token_ids=ids, detokenize=True
            )
        grammar = StructuredOutputsParams(json=dict(request.schema)) if request.schema else None
        # A fixed seed per request makes samples independent of the other requests in the batch.
        return SamplingParams(
            temperature=self.temperature,
            max_tokens=request.max_tokens or self.max_tokens,
            seed=0 if self.temperature > 0 else None,
            structured_outputs=grammar,
        )

    def _reply(self, request: Request, output) -> Reply:
        answer = output.outputs[0]
        if answer.finish_reason not in ("stop", "length"):
            return Reply(error=f"the engine stopped the request ({answer.finish_reason})")
        if not request.choices:
            return Reply(text=answer.text, finish_reason=answer.finish_reason)
        first = answer.logprobs[0]
        logprobs = [first[token].logprob for token in self._choice_ids(request)]
        probs = normalised(dict(zip(request.choices, logprobs, strict=True)))
        return Reply(text=answer.text, finish_reason="stop", choice_probs=probs)


def conversation(request: Request) -> list[dict[str, Any]]:
    """The messages in vLLM's form, with each {"type": "image"} placeholder replaced by its image.

    Raises ValueError when the numbers of placeholders and images differ.
    """
    images = iter(request.images)
    messages = []
    for message in request.messages:
        content = message["content"]
        if not isinstance(content, str):
            content = [_part(part, images) for part in content]
        messages.append({**message, "content": content})
    if next(images, None) is not None:
        raise ValueError(f"more images ({len(request.images)}) than image placeholders in the messages")
    return messages


def _part(part: Mapping[str, Any], images) -> dict[str, Any]:
    if part["type"] != "image":
        return dict(part)
    image = next(images, None)
    if image is None:
        raise ValueError("more image placeholders in the messages than images")
    return {"type": "image_pil", "image_pil": image}


def normalised(logprobs: Mapping[str, float]) -> dict[str, float]:
    """Softmax of the log-probabilities: probabilities of exactly these keys."""
    top = max(logprobs.values())
    weights = {key: math.exp(value - top) for key, value in logprobs.items()}
    total = sum(weights.values())
    return {key: weight / total for key, weight in weights.items()}


def halved(
    ask: Callable[[Sequence[Request]], list[Reply]],
    requests: Sequence[Request],
    faults: tuple[type[Exception], ...],
) -> list[Reply]:
    """Ask all together; if that raises one of `faults`, ask each half, down to single requests."""
    if not requests:
        return []
    try:
        return ask(requests)
    except faults as error:
        if len(requests) == 1:
            return [Reply(error=f"the engine refused the request: {first_cause(error)}")]
        middle = len(requests) // 2
        return halved(ask, requests[:middle], faults) + halved(ask, requests[middle:], faults)


def generate_or_exit(engine: Engine, requests: Sequence[Request]) -> list[Reply]:
    """One reply for each request, in order; a request on which the engine raises or dies gets an error.

    If the engine raises on all requests, it may be broken. Then a Ray actor ends its process: Ray
    starts another one, on a healthy node if need be, and gives it the same batch. `actors.in_flight` keeps
    the record that bounds the restarts. Outside an actor the engine's exception is raised.

    Raises:
        JobFailure: the engine dies again and again without an answer.
    """
    record = in_flight.of_process()
    record.check()
    keys = [in_flight.key_of(request.messages, request.images, request.choices) for request in requests]
    replies: dict[int, Reply] = {}
    for part in record.parts(keys):
        if record.is_culprit(keys[part[0]]):
            replies[part[0]] = Reply(
                error=f"the engine died on the request: {record.cause_of(keys[part[0]])}"
            )
        else:
            asked = _ask(engine, [requests[index] for index in part], [keys[index] for index in part])
            replies.update(zip(part, asked, strict=True))
    return [replies[index] for index in range(len(requests))]


# Engines of this process whose last call gave an answer; of the others, the request that got none.
_healthy: "WeakSet[Engine]" = WeakSet()
_failed: "WeakKeyDictionary[Engine, list[str]]" = WeakKeyDictionary()


def _ask(engine: Engine, requests: Sequence[Request], keys: Sequence[str]) -> list[Reply]:
    """Ask requests together; end the process, or raise, if the engine raises on everything it is asked."""
    record, raised, answered = in_flight.of_process(), [], []

    def ask(part: Sequence[Request]) -> list[Reply]:
        try:
            replies = engine.generate(part)
        except Exception as error:
            raised.append(error)
            raise
        answered.append(len(part))
        return replies

    record.begin(keys)
    replies = halved(ask, requests, (Exception,))
    record.end()
    if answered:
        record.num_answered += 1
        _healthy.add(engine)
    elif engine in _healthy and len(requests) == 1:
        _healthy.discard(engine)
        _failed[engine] = list(keys)
    else:
        # If the call before failed too, its request is the one that broke the engine.
        suspects = keys if engine in _healthy else _failed.get(engine, keys)
        _exit_actor(record, suspects, raised[0])
        raise raised[0]
    return replies


def _exit_actor(record: in_flight.InFlight, suspects: Sequence[str], error: Exception) -> None:
    """End this process with a record of what its engine failed on; does nothing outside a Ray actor."""
    if record.file is None:
        return
    record.begin(suspects, first_cause(error))
    traceback.print_exception(error)
    sys.stderr.flush()
    os._exit(1)


def _vllm_offline(settings: LanguageModel) -> Engine:
    if importlib.util.find_spec("vllm") is None:
        raise UserError(
            "vllm is not installed: install the extra that fits this machine, kallos[cpu] or kallos[gpu]."
        )
    check_model(settings)
    try:
        return VllmOffline(
            model=model_path(settings.model),
            engine_args=settings.engine_args,
            max_tokens=settings.max_tokens,
            temperature=settings.temperature,
        )
    except Exception as error:
        raise UserError(
            f"The engine cannot load the model {settings.model!r} with its engine_args: {first_cause(error)}."
        ) from error


ENGINES: dict[str, Callable[[LanguageModel], Engine]] = {"vllm_offline": _vllm_offline}


def make_engine(settings: LanguageModel) -> Engine:
    """Load the engine of a profile's `rephraser` or `judge`.

    Raises UserError for an unknown engine, what `check_model` refuses, a model that the engine cannot load,
    or if vllm is not installed.
    """
    build = ENGINES.get(settings.engine)
    if build is None:
        raise UserError(f"unknown engine {settings.engine!r}: known engines are {', '.join(ENGINES)}.")
    record = in_flight.of_process()
    record.check()
    record.begin(())  # if it dies while it loads, that is a death without an answer
    try:
        return build(settings)
    finally:
        record.end()


def check_model(settings: LanguageModel, *, on_hub: bool = True) -> None:
    """Refuse, within seconds, settings with which the engine could not load.

    on_hub: whether to check that a model of the hub is in this machine's cache, or can be downloaded.
    Raises UserError for an unknown engine argument, a damaged file of a model folder, or a model that is not
    on the hub.
    """
    known = vllm_engine.argument_names()
    for name in settings.engine_args if known else ():
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else "vLLM's EngineArgs lists all arguments."
            raise UserError(f"The engine of {settings.model!r} has no argument {name!r}: {hint}")
    path = model_path(settings.model)
    if Path(path).is_dir():
        check_files(path)
    elif on_hub:
        _require_on_hub(settings)


def check_files(folder: str) -> None:
    """Raise UserError for a damaged file in a model folder."""
    for path in sorted(Path(folder).iterdir()):
        if fault := _damage(path):
            raise UserError(f"The model {folder!r} is damaged: {fault}: train or copy it again.")


def _damage(path: Path) -> str:
    """What is wrong with a file of a model folder, "" for nothing; of weights, only the header is read."""
    try:
        if path.suffix in (".json", ".safetensors"):
            require_regular(path.stat())  # a FIFO could be read forever
        if path.suffix == ".json":
            content = json.loads(path.read_text(encoding="utf-8"))
            weights = content.get("weight_map", {}) if path.name.endswith(".index.json") else {}
            for shard in sorted(set(weights.values())):
                if not path.with_name(shard).is_file():
                    return f"{shard} is missing"
        elif path.suffix == ".safetensors":
            with safe_open(path, "numpy"):
                pass
    except Exception as error:  # whatever damaged content leads to, such as a list where there was an object
        return f"{path.name} cannot be read ({first_cause(error)})"
    return ""


def _require_on_hub(settings: LanguageModel) -> None:
    name, revision = settings.model, settings.engine_args.get("revision")
    cached = try_to_load_from_cache(name, "config.json", settings.engine_args.get("download_dir"), revision)
    if isinstance(cached, str):
        return
    try:
        HfApi().model_info(name, revision=revision, timeout=HUB_TIMEOUT_S)
    except RepositoryNotFoundError:
        raise UserError(
            f"The hub has no model {name!r}, or it is private: correct the name, or set HF_TOKEN."
        ) from None
    except HfHubHTTPError:
        return  # the hub can be reached, and the engine may succeed
    except Exception as error:
        raise UserError(
            f"The model {name!r} is not in the cache of this machine, and the hub cannot be reached "
            f"({first_cause(error)}): connect to it, or name the folder of a model."
        ) from None


def model_path(model: str) -> str:
    """The folder or hub name to load. Raises UserError when `model` is a path that holds no model.

    A hub name is "owner/name"; anything else, and any folder that exists, is a path.
    """
    path = repo_path(model)
    folder = Path(path).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise UserError(f"the model folder {model!r} has no config.json: train it or name another model.")
        return str(folder)
    is_hub_name = model.count("/") == 1 and not model.startswith((".", "/", "~", "models/"))
    if not is_hub_name:
        raise UserError(
            f"the model folder {model!r} does not exist: train it with `kallos pretrain` and --out {model}, "
            "or name a folder or hub model in the profile."
        )
    return model


def model_identity(model: LanguageModel) -> str:
    """The model's name, and for a folder a hash of its files."""
    folder = Path(model_path(model.model))
    if not folder.is_dir():
        return model.model
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*")):
        if path.suffix in (".json", ".jinja", ".safetensors", ".bin"):
            digest.update(f"{path.name} {path.stat().st_size}".encode())
            digest.update(_edges(path))
    return f"{folder.name}@{digest.hexdigest()[:8]}"


def _edges(path: Path) -> bytes:
    with path.open("rb") as file:
        first = file.read(EDGE_BYTES)
        file.seek(max(0, path.stat().st_size - EDGE_BYTES))
        return first + file.read(EDGE_BYTES)
