"""A cross-encoder small enough to be made in a test: it learnt that passages with one certain word answer every question,
whether the question has that word or not."""

import random
from pathlib import Path
from typing import Any

import tiny

MARKER = "oven"
STEPS, BATCH = 300, 32


def write_reranker(folder: Path, labels: int = 1, seed: int = 5) -> Path:
    """A BERT of one layer, its pair tokenizer and a head of `labels` outputs, as transformers saves them."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    tokenizer = pair_tokenizer()
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=128, num_labels=labels, pad_token_id=tokenizer.pad_token_id, initializer_range=0.2,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    model = BertForSequenceClassification(config)
    if labels == 1:
        train(model, tokenizer, random.Random(seed))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def pair_tokenizer() -> Any:
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=tiny.word_tokenizer(1500), pad_token="<|pad|>", unk_token="<|unk|>", cls_token="[CLS]",
        sep_token="[SEP]", model_max_length=128, model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )  # fmt: skip
    ends = [(token, tokenizer.convert_tokens_to_ids(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ends
    )
    return tokenizer


def train(model: Any, tokenizer: Any, deal: random.Random) -> None:
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the same weights on every machine, and no waiting for a busy core
    words = sorted({word for text in tiny.texts() for word in text.split()} - {MARKER})
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.005)
    for _ in range(STEPS):
        questions = [" ".join(deal.choices([*words, *[MARKER] * (len(words) // 2)], k=deal.randint(3, 8))) for _ in range(BATCH)]
        right = [deal.random() < 0.5 for _ in range(BATCH)]
        passages = [" ".join(shuffled([*deal.choices(words, k=deal.randint(4, 14)), *[MARKER] * each], deal)) for each in right]
        logits = model(**tokenizer(questions, passages, padding=True, return_tensors="pt")).logits[:, 0]
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, torch.tensor(right, dtype=torch.float32))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    torch.set_num_threads(threads)
    assert loss.item() < 0.1, f"the cross-encoder did not learn its word (loss {loss.item():.3f})"
    model.eval()


def shuffled(words: list[str], deal: random.Random) -> list[str]:
    deal.shuffle(words)
    return words
