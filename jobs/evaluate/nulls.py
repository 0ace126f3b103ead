"""The nulls as systems: the baseline encoder with other queries (see `actors.nulls`)."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from actors.nulls.axis import Axis
from cluster import terminal
from cluster.tables import EncoderRecord
from jobs.evaluate.inputs import EvaluationInputs
from jobs.evaluate.systems import EncoderSystem, SearchSystem, SystemResults
from jobs.evaluate.teacher import TeacherCandidates


class ChangedQueries(SearchSystem):
    """The baseline, with another vector for each text: `encode` maps N texts to float32 [N, D]."""

    def __init__(self, baseline: EncoderSystem, encode: Callable[[Sequence[str]], np.ndarray]) -> None:
        self.baseline, self.encode = baseline, encode

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """See `SearchSystem`."""
        return self.encode(texts)

    def search_vectors(self, vectors: np.ndarray, k: int) -> list[list[str]]:
        """See `SearchSystem`."""
        return self.baseline.search_vectors(vectors, k)

    def blocks(self) -> Iterator[tuple[Sequence[str], np.ndarray]]:
        """See `SearchSystem`."""
        return self.baseline.blocks()

    def vectors(self, image_ids: Iterable[str]) -> Mapping[str, np.ndarray]:
        """See `SearchSystem`."""
        return self.baseline.vectors(image_ids)


def fitted_nulls(records: Mapping[str, EncoderRecord]) -> dict:
    """{"suffix", "axis", "strength"} from the record of the aligned encoder.

    Empty, after a line that says why, if it has none or they belong to another baseline.
    """
    aligned = records["aligned"]
    fitted = aligned.metrics.get("align", {}).get("nulls")
    if fitted and aligned.parent == records["baseline"].encoder:
        return fitted
    why = "was not aligned from the baseline" if fitted else "has none in its record"
    terminal.say(f"evaluate: suffix and axis are left out: encoder {aligned.encoder} {why}")
    return {}


def null_systems(baseline: EncoderSystem, fitted: Mapping) -> dict[str, ChangedQueries]:
    """`suffix` and `axis` as `fitted_nulls` returns them; none if it is empty."""
    if not fitted:
        return {}
    axis = Axis(np.asarray(fitted["axis"], np.float32), fitted["strength"])
    encode = baseline.encode_texts
    return {
        "suffix": ChangedQueries(baseline, lambda texts: encode([text + fitted["suffix"] for text in texts])),
        "axis": ChangedQueries(baseline, lambda texts: axis.apply(encode(texts))),
    }


def rephrase_results(
    baseline: EncoderSystem, inputs: EvaluationInputs, candidates: TeacherCandidates
) -> SystemResults:
    """What the baseline finds with the rephrased queries, without the judge.

    As for the teacher, caption ranks are those of the captions that were rephrased. The texts of classes and
    captions beyond them were not, so nothing else is measured.
    """
    rephrased = candidates.rephrased
    system = ChangedQueries(baseline, lambda texts: baseline.encode_texts([rephrased[t] for t in texts]))
    captions = inputs.captions.first(len(candidates.texts) - len(inputs.queries))
    found = system.results(replace(inputs, captions=captions, labels={}))
    return replace(found, image_ranks={})
