"""Options of `kallos pretrain rephraser`."""

from pydantic import Field, model_validator

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
        default=2048, ge=300, description="number of tokens in the byte-level BPE, including special tokens"
    )
    hidden_size: int = Field(default=192, ge=32, description="width of the model, in channels")
    num_layers: int = Field(default=4, ge=1, description="number of transformer blocks")
    num_heads: int = Field(default=6, ge=1, description="number of attention heads")
    num_kv_heads: int = Field(default=2, ge=1, description="number of key and value heads")
    intermediate_size: int = Field(default=512, ge=32, description="width inside the MLP, in channels")
    init: str | None = Field(
        default=None, description="folder of a checkpoint to continue from; default: a new model"
    )
    num_copy_steps: int = Field(
        default=700,
        ge=0,
        description="number of optimizer steps at the start, which learn to repeat random tokens",
    )
    num_steps: int = Field(
        default=1300, ge=0, description="number of optimizer steps on chats, after the copy steps"
    )
    copy_every: int | None = Field(
        default=5,
        ge=1,
        description="every copy_every-th of these steps repeats random tokens, so that copying is not "
        "forgotten; None: never",
    )
    batch_size: int = Field(default=64, ge=1, description="number of chats in a step, all in one style")
    learning_rate: float = Field(
        default=2e-3, gt=0, description="AdamW's peak learning rate; it decays to a tenth along a cosine"
    )
    num_warmup_steps: int = Field(default=100, ge=1, description="number of steps of linear warm-up")
    weight_decay: float = Field(default=0.01, ge=0, description="AdamW's decoupled weight decay")
    num_threads: int | None = Field(
        default=1,
        ge=1,
        description="number of torch threads; 1 wastes least on a busy machine; None: torch's own choice",
    )
    num_eval_queries: int = Field(
        default=300,
        ge=1,
        le=1000,
        description="number of queries of each kind, evaluated in every style for the model card",
    )

    @model_validator(mode="after")
    def _check_heads(self) -> "PretrainRephraserConfig":
        if self.hidden_size % (2 * self.num_heads):
            raise ValueError(
                f"hidden_size = {self.hidden_size} is not a multiple of 2 x num_heads = {2 * self.num_heads}"
            )
        if self.num_heads % self.num_kv_heads:
            raise ValueError(
                f"num_heads = {self.num_heads} is not a multiple of num_kv_heads = {self.num_kv_heads}"
            )
        return self
