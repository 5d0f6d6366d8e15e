"""Greedy answers from a base model, with or without an adapter merged into it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tasks.decoding import Decoder, Tokens, decoder_of
from tasks.lineage import check_fits
from tasks.params import Precision, PromptParams
from tasks.prompts import Message, check_chat_template, rendered
from tasks.stage import say

GENERATING = ("torch", "transformers", "peft")  # the libraries whose arithmetic an answer is


@dataclass(frozen=True)
class Generated:
    text: str
    prompt_tokens: int
    completion_tokens: int


def device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def resolved(prompt: PromptParams) -> PromptParams:
    """With the precision that `auto` means on this machine: what is measured here is what a release pins."""
    auto: Precision = "bfloat16" if device() == "cuda" else "float32"  # fp16 on a CPU is slow and overflows
    return prompt if prompt.precision != "auto" else prompt.model_copy(update={"precision": auto})


def decoding(prompt: PromptParams) -> dict[str, Any]:
    """How answers are generated, as a manifest pins it; `prompt` is resolved."""
    return {"do_sample": False, "max_new_tokens": prompt.max_new_tokens, "dtype": prompt.precision}


def environment() -> dict[str, str]:
    """What else decides an answer's last digits: in another one, equal weights and decoding may give another word."""
    import torch

    processor = torch.cuda.get_device_name() if device() == "cuda" else torch.backends.cpu.get_cpu_capability()
    return {"processor": f"{device()} {processor}"} | {library: version(library) for library in GENERATING}


class Generator:
    """Two weight sets (base, merged) are faster than mixed-adapter batches, and what is measured is what is served."""

    def __init__(self, base: Path, adapter: Path | None, decoding: Mapping[str, Any]) -> None:
        """`decoding`: as `tasks.generation.decoding` makes it, or as a manifest pins it."""
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

        if adapter is not None:
            check_fits(base, adapter)
        self.device, self.decoding = device(), dict(decoding)
        dtype = getattr(torch, self.decoding["dtype"])
        self.tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True, padding_side="left")
        check_chat_template(self.tokenizer)
        self.tokenizer.pad_token = self.tokenizer.pad_token or self.tokenizer.eos_token
        model = AutoModelForCausalLM.from_pretrained(base, local_files_only=True, dtype=dtype, use_safetensors=True)
        self.model = merged(model, adapter).to(self.device).eval()
        self.model.generation_config = GenerationConfig(
            max_new_tokens=self.decoding["max_new_tokens"],
            do_sample=self.decoding["do_sample"],
            eos_token_id=stop_tokens(self.model, self.tokenizer),
            pad_token_id=self.tokenizer.pad_token_id,
        )
        self.alone = torch.inference_mode()(decoder_of(self.model))
        self.decoder = self.alone  # of many

    def batches(self, prompts: Sequence[str], batch_tokens: int, label: str) -> Iterator[dict[str, Generated]]:
        """Rendered prompts to answers, some at a time; the keys and values of `batch_tokens` tokens are held at once."""
        order, made = sorted(set(prompts)), 0
        for some in self._generate(order, batch_tokens, self.decoder) if order else ():  # a tokenizer reads one text at least
            yield some
            if made // 128 < (made + len(some)) // 128:
                say(f"{label}: {made + len(some)} of {len(order)} answers")
            made += len(some)

    def answer(self, messages: list[Message]) -> Generated:
        prompt = self.render(messages)
        return next(self._generate([prompt], 1, self.alone))[prompt]

    def render(self, messages: list[Message]) -> str:
        return rendered(self.tokenizer, messages)

    def close(self) -> None:
        """Ends what it started."""

    def _generate(self, prompts: list[str], batch_tokens: int, decoder: Decoder) -> Iterator[dict[str, Generated]]:
        read = self.tokenizer(prompts, add_special_tokens=False)["input_ids"]
        for some in decoder(self.model, read, batch_tokens):
            yield {prompts[number]: self._generated(read[number], written) for number, written in some.items()}

    def _generated(self, read: Tokens, written: Tokens) -> Generated:
        text = self.tokenizer.decode(written, skip_special_tokens=True).strip()
        return Generated(text, len(read), sum(token != self.tokenizer.pad_token_id for token in written))


def merged(model: Any, adapter: Path | None) -> Any:
    if adapter is None:
        return model
    from peft import PeftModel

    return PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()


def stop_tokens(model: Any, tokenizer: Any) -> list[int]:
    """Chat models often end a turn with another token than the tokenizer's end of sequence; their own config knows it."""
    known = model.generation_config.eos_token_id
    listed = known if isinstance(known, list) else [known]
    return sorted({token for token in [*listed, tokenizer.eos_token_id] if token is not None})
