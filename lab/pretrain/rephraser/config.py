"""Options of `kallos pretrain rephraser`."""

from pydantic import Field

from cluster.command import Options


class PretrainRephraserConfig(Options):
    """Train the mini rephraser."""

    out: str = Field(
        default="runs/pretrain/rephraser",
        description="folder for the checkpoint; it must not contain one yet",
    )
    measure: str | None = Field(
        default=None, description="folder of a checkpoint to measure instead of training one; default: train"
    )
    seed: int = Field(default=0, ge=0, description="seed of data, initial weights, order and evaluation")
    vocab_size: int = Field(
        default=2048, ge=300, description="tokens of the byte-level BPE with its special ones, a count"
    )
    hidden_size: int = Field(default=192, ge=32, description="width of the model, a count of channels")
    num_layers: int = Field(default=4, ge=1, description="transformer blocks, a count")
    num_heads: int = Field(default=6, ge=1, description="attention heads, a count")
    num_kv_heads: int = Field(default=2, ge=1, description="key and value heads, a count")
    intermediate_size: int = Field(
        default=512, ge=32, description="width inside the MLP, a count of channels"
    )
    init: str | None = Field(
        default=None, description="folder of a checkpoint to continue from; default: a new model"
    )
    num_copy_steps: int = Field(
        default=700, ge=0, description="first optimizer steps, which learn to repeat random tokens, a count"
    )
    num_steps: int = Field(
        default=1300, ge=0, description="optimizer steps on chats, after the copy steps, a count"
    )
    copy_every: int | None = Field(
        default=5,
        ge=1,
        description="every how many of these steps repeats random tokens, so that copying is not forgotten, "
        "a count; None: never",
    )
    batch_size: int = Field(default=64, ge=1, description="chats of a step, all in one prompt style, a count")
    learning_rate: float = Field(
        default=2e-3, gt=0, description="AdamW's peak learning rate; it decays to a tenth along a cosine"
    )
    num_warmup_steps: int = Field(default=100, ge=1, description="steps of linear warm-up, a count")
    weight_decay: float = Field(default=0.01, ge=0, description="AdamW's decoupled weight decay")
    num_threads: int | None = Field(
        default=1,
        ge=1,
        description="torch threads, a count; 1 wastes least on a busy machine; None: torch's own choice",
    )
    num_eval_queries: int = Field(
        default=300,
        ge=1,
        description="queries of each kind, evaluated in every style for the model card, a count",
    )
