"""The model card of a mini rephraser: written after training, or its figures updated after measuring."""

import datetime
import re
from collections.abc import Mapping
from pathlib import Path
from string import Template

from cluster.errors import UserError
from lab.machine import machine
from lab.pretrain.rephraser.evaluation import Evaluation, table

TEMPLATE = Path(__file__).parent / "card.md"
FIGURES_TEMPLATE = """Measured on $date with seed $seed on $machine:
$num_queries queries of each kind in each style, through vLLM as in production, with greedy decoding and the
grammar. None of them is a training query (the training queries are drawn again to check), and the words of
`everyday` queries are held out. Shares of the queries, with Wilson's 95 % intervals:

$table

- **queries**: `plain`: as the studio's `sample_query` writes them; `word order`: light, place or colour in an
  unusual position ("at sunset a red sailboat", "snow castle", "in the forest, horse"); `typo`: one letter of
  the subject dropped, doubled or swapped; `plural`; `two subjects`; `everyday` and `made up`: words outside
  the studio's lexicon.
- **parses at once**: with the grammar that only fixes the form. Answers that did not parse were requested
  again with the strict grammar. A query without an answer counts as a miss in every column.
- **keeps the subject**: the text for the encoder contains each noun of the query, as typed and complete.
- **suitable expectations**: no light that contradicts the light of the query, no golden hour indoors, no
  horizon indoors or in a still life, no phrase that describes a bad photograph
  (`lab/pretrain/rephraser/expectation_check.py`).
- **adds no other words**: only words of the query and of expectations, and words that join them."""


def write_card(folder: str | Path, values: Mapping[str, object], figures: str) -> None:
    """Write the whole card into `folder`; `values` fill the template, except for its figures."""
    text = Template(TEMPLATE.read_text(encoding="utf-8")).substitute(values, figures=figures)
    (Path(folder) / "README.md").write_text(text, encoding="utf-8")


def check_card(folder: str | Path) -> tuple[str, str, str]:
    """The card in `folder`: what is before the section "Figures", its title, and what follows.

    Raises UserError when the folder has no card with such a section.
    """
    card = Path(folder) / "README.md"
    text = card.read_text(encoding="utf-8") if card.exists() else ""
    before, found, after = text.partition("\n## Figures\n")
    if not found:
        raise UserError(f"the folder {str(folder)!r} has no card (README.md) with a section 'Figures'.")
    return before, found, after


def rewrite_figures(folder: str | Path, figures: str) -> None:
    """Replace the section "Figures" of the card in `folder`. Raises UserError as `check_card` does."""
    before, found, after = check_card(folder)
    rest = re.search(r"\n## .*", after, flags=re.DOTALL)
    end = f"\n{rest.group()}" if rest else "\n"
    (Path(folder) / "README.md").write_text(f"{before}{found}{figures}{end}", encoding="utf-8")


def figures_text(evaluation: Evaluation, *, num_queries: int, seed: int) -> str:
    """The text of the card's section "Figures"."""
    here = machine()
    return Template(FIGURES_TEMPLATE).substitute(
        date=datetime.date.today().isoformat(),
        seed=seed,
        machine=f"{here['num_cores']} cores of {here['processor']}",
        num_queries=num_queries,
        table=table(evaluation),
    )
