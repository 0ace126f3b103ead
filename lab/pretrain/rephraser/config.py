"""Options of `kallos pretrain rephraser`."""

from pydantic import BaseModel, ConfigDict, Field


class RephraserTraining(BaseModel):
    """How the mini rephraser is made."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    out: str = Field("runs/pretrain/rephraser", description="folder for the checkpoint, must hold none")
    measure: str = Field("", description="folder of a checkpoint to measure, empty = train one instead")
    seed: int = Field(0, ge=0, description="seed of data, initial weights and order, and of what is measured")
    vocab_size: int = Field(2048, ge=300, description="tokens of the byte-level BPE, special ones included")
    hidden_size: int = Field(192, ge=32, description="width of the model")
    num_layers: int = Field(4, ge=1, description="transformer blocks")
    num_heads: int = Field(6, ge=1, description="attention heads")
    num_kv_heads: int = Field(2, ge=1, description="key and value heads")
    intermediate_size: int = Field(512, ge=32, description="width inside the MLP")
    init: str = Field("", description="folder of a checkpoint to go on from, empty = a new model")
    num_copy_steps: int = Field(700, ge=0, description="optimizer steps that repeat random tokens, at first")
    num_steps: int = Field(
        1300, ge=0, description="optimizer steps after those, on chats but for `copy_every`"
    )
    copy_every: int = Field(
        5, ge=0, description="every so many of those repeat random tokens again, 0 = none: copying fades"
    )
    batch_size: int = Field(64, ge=1, description="chats per step, all in one prompt style")
    learning_rate: float = Field(2e-3, gt=0, description="AdamW's peak step size, cosine decay to a tenth")
    num_warmup_steps: int = Field(100, ge=1, description="steps of linear warm-up")
    weight_decay: float = Field(0.01, ge=0, description="AdamW's decoupled decay")
    num_threads: int = Field(
        1, ge=0, description="torch threads, 0 = torch's own; one wastes least on a busy machine"
    )
    num_eval_queries: int = Field(
        300, ge=1, description="queries of each kind asked in every style for the card"
    )
