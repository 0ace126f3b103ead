"""A byte-level BPE as Qwen2's tokenizer, fitted on given texts."""

from collections.abc import Iterable

from tokenizers import trainers
from tokenizers.pre_tokenizers import ByteLevel
from transformers import Qwen2Tokenizer

START, END, PAD = "<|im_start|>", "<|im_end|>", "<|endoftext|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}" + START + "{{ message['role'] }}\n{{ message['content'] }}" + END + "\n"
    "{% endfor %}{% if add_generation_prompt %}" + START + "assistant\n{% endif %}"
)


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Qwen2Tokenizer:
    """Fits at most `vocab_size` tokens, every byte among them; answers end with END.

    Loading a Qwen2 checkpoint builds a `Qwen2Tokenizer`, which splits words by Qwen's own rule whatever the
    files say: so the merges are fitted under that rule.
    """
    backend = Qwen2Tokenizer().backend_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD, START, END],
        initial_alphabet=ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    tokenizer = Qwen2Tokenizer(tokenizer_object=backend, eos_token=END, pad_token=PAD)
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer
