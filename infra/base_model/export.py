"""Write a checkpoint as a Hugging Face folder: fp16 safetensors, tokenizer, chat template, generation settings."""

import argparse
from pathlib import Path

import torch
import yaml
from transformers import GenerationConfig, Lfm2ForCausalLM, PreTrainedTokenizerFast

import network
import tokenizer as pieces

TEMPLATE = Path(__file__).with_name("chat_template.jinja")


def wrapped(raw, context: int) -> PreTrainedTokenizerFast:
    """The tokenizer with its special tokens named, padding left, and the chat template."""
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw,
        eos_token=pieces.END,
        pad_token=pieces.PAD,
        unk_token="<unk>",
        additional_special_tokens=[pieces.SYSTEM, pieces.USER, pieces.ASSISTANT],
        model_max_length=context,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = TEMPLATE.read_text(encoding="utf-8").rstrip("\n")
    return tokenizer


def export(checkpoint: Path, params: dict, folder: Path) -> None:
    """Save the model of a checkpoint and everything that loads with it into `folder`."""
    shape = params["network"]
    raw, sources = pieces.build(**params["tokenizer"])
    rows = torch.zeros(len(sources), shape["width"])
    model: Lfm2ForCausalLM = network.build(shape, rows, 0)
    model.load_state_dict(torch.load(checkpoint, weights_only=False)["model"])
    model.generation_config = GenerationConfig(
        do_sample=False,
        max_new_tokens=32,
        eos_token_id=model.config.eos_token_id,
        pad_token_id=model.config.pad_token_id,
    )
    model.half().save_pretrained(folder)
    wrapped(raw, shape["context"]).save_pretrained(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    params = yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))
    export(arguments.checkpoint, params, arguments.folder)


if __name__ == "__main__":
    main()
