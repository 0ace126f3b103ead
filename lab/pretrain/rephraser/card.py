"""The model card of a mini rephraser: written whole after training, or its figures alone after measuring."""

import datetime
import re
from collections.abc import Mapping
from pathlib import Path
from string import Template

from cluster.errors import UserError
from lab.machine import machine
from lab.pretrain.rephraser.figures import Counts, table

TEMPLATE = Path(__file__).parent / "card.md"
ABOUT_FIGURES = """Measured on $date with seed $seed on $machine:
$num_queries queries of each kind in each style, through vLLM as in production, greedy, under the grammar.
None of them was trained on (the training data are drawn again to see), nor were the words of `everyday`.
Shares of the queries, with Wilson's 95 % intervals:

$table

- **queries**: `plain` as the studio's searchers type them; `word order`: light, place or colour where they
  are seldom typed ("at sunset a red sailboat", "snow castle", "in the forest, horse"); `typo`: one letter of
  the subject swapped, dropped or doubled; `plural`; `two subjects`; `everyday` and `made up`: words outside
  the studio's lexicon.
- **parses at once**: under the grammar that asks only for the form. Where an answer did not, the strict
  grammar was asked as well. A query without an answer is a miss in every column.
- **keeps the subject**: each of its nouns, as typed, stands whole in the text that reaches the encoder.
- **fits**: no light that contradicts the light of the query, no golden hour within doors, no horizon within
  doors or in a still life, no word of a bad photograph (`lab/pretrain/rephraser/fit.py`).
- **says nothing else**: no word but the query's own, the expectations' and those that join them."""


def write_card(folder: str | Path, values: Mapping[str, object], figures: str) -> None:
    """The whole card in `folder`; `values` are those of the template but for its figures."""
    text = Template(TEMPLATE.read_text(encoding="utf-8")).substitute(values, figures=figures)
    (Path(folder) / "README.md").write_text(text, encoding="utf-8")


def rewrite_figures(folder: str | Path, figures: str) -> None:
    """Puts `figures` in the place of the card's section of that name.

    Raises UserError when the folder has no card with such a section.
    """
    card = Path(folder) / "README.md"
    text = card.read_text(encoding="utf-8") if card.exists() else ""
    before, found, after = text.partition("\n## Figures\n")
    if not found:
        raise UserError(f"the folder {str(folder)!r} has no card (README.md) with a section 'Figures'.")
    rest = re.search(r"\n## .*", after, flags=re.DOTALL)
    end = f"\n{rest.group()}" if rest else "\n"
    card.write_text(f"{before}{found}{figures}{end}", encoding="utf-8")


def figures_text(evaluation: dict[str, dict[str, Counts]], *, num_queries: int, seed: int) -> str:
    """The card's section on figures, without its head."""
    here = machine()
    return Template(ABOUT_FIGURES).substitute(
        date=datetime.date.today().isoformat(),
        seed=seed,
        machine=f"{here['num_cores']} cores of {here['processor']}",
        num_queries=num_queries,
        table=table(evaluation),
    )
