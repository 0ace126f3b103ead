"""Measures a mini encoder on held-out scenes, and writes its model card."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from actors.caption_pairs import pair_ranks
from actors.encoder import Encoder
from lab.pretrain.encoder.config import PretrainEncoderConfig
from lab.pretrain.encoder.scenes import HELD_OUT_STREAM, draw_scenes, scene
from lab.studio.captions import detailed_caption, sample_queries
from lab.studio.latents import Latents, is_accurate, true_aesthetics

NUM_QUERIES, TOP_K = 200, 5
ENCODE_BATCH = 256
# Added to every query, to show what the encoder knows about quality (the paper's figure 3).
QUALITY_WORDS = ", beautiful light, sharp focus, well exposed, vivid colours"
CARD = """# Kallos mini encoder

An open_clip two-tower encoder (timm `resnet10t` at 96 px, a 4-layer text transformer, 128 dimensions),
trained from scratch on scenes of the Kallos studio (drawn images) and their web-like captions. It knows only
the words of the studio. It lets the whole system run offline and is not meant for photographs.

Trained by `kallos pretrain encoder` with {config}. Measured on {num_held_out} held-out scenes,
with the queries as they are (`plain`) and with "{quality_words}" added (`with_quality_words`).
Recall is that of captions; `aesthetics_of_accurate` is the mean beauty of accurate results, 0 to 1.

| figure | value |
| --- | --- |
{rows}
"""


def measure(folder: Path, config: PretrainEncoderConfig) -> dict[str, float]:
    """Figures on held-out scenes: caption recall, and the top five results of queries.

    The queries are measured as they are and with `QUALITY_WORDS`.
    """
    encoder = Encoder.load(str(folder))
    latents = [scene(HELD_OUT_STREAM, index) for index in range(config.num_held_out)]
    pixels = draw_scenes(HELD_OUT_STREAM, config.num_held_out, encoder.fit.height_px).transpose(0, 3, 1, 2)
    starts = range(0, len(pixels), ENCODE_BATCH)
    images = np.concatenate([encoder.encode_images(pixels[i : i + ENCODE_BATCH]) for i in starts])
    captions = encoder.encode_texts([detailed_caption(scene_latents) for scene_latents in latents])
    ranks = pair_ranks(captions, images)
    figures = {f"recall@{k}": float((ranks <= k).mean()) for k in (1, 5, 10)}
    queries = sample_queries(np.random.default_rng(HELD_OUT_STREAM), NUM_QUERIES)
    for name, suffix in (("plain", ""), ("with_quality_words", QUALITY_WORDS)):
        vectors = encoder.encode_texts([query + suffix for query in queries])
        top = np.argsort(-vectors @ images.T, axis=1)[:, :TOP_K]
        of_queries = measure_results(queries, top, latents)
        figures |= {f"{figure}_{name}": value for figure, value in of_queries.items()}
    return {name: round(value, 4) for name, value in figures.items()}


def measure_results(queries: Sequence[str], top: np.ndarray, latents: Sequence[Latents]) -> dict[str, float]:
    """Figures of the results; `top`, int [Q, TOP_K], holds rows of `latents`."""
    beauty = np.array([true_aesthetics(scene_latents) for scene_latents in latents])
    accurate = np.array(
        [[is_accurate(query, latents[i]) for i in row] for query, row in zip(queries, top, strict=True)]
    )
    return {
        "precision@5": float(accurate.mean()),
        "aesthetic@5": float((accurate * beauty[top]).mean()),
        "aesthetics_of_accurate": float((accurate * beauty[top]).sum() / max(1, accurate.sum())),
    }


def write_card(folder: Path, config: PretrainEncoderConfig, figures: Mapping[str, float]) -> None:
    """Write the model card, README.md in the folder of the model."""
    rows = "\n".join(f"| {name} | {value} |" for name, value in figures.items())
    options = config.model_dump(exclude={"out"})
    text = ", ".join(f"`{name}={value}`" for name, value in options.items())
    card = CARD.format(config=text, num_held_out=config.num_held_out, quality_words=QUALITY_WORDS, rows=rows)
    (folder / "README.md").write_text(card)
