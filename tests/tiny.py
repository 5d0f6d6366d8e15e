"""A small world for the tests: a corpus of ten pages on two days, its questions, two models of some ten thousand parameters,
and a clone of this repository in which `tandem` and `dvc repro` run with them. The models are real and random: what they say
means nothing, what the pipeline does with it does."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
CODE = (
    ".dvc/config",
    ".dvcignore",
    "dvc.yaml",
    "params",
    "tasks",
    "flows",
    "infra/replay",
    "infra/general.txt",
    "infra/probes.jsonl",
)
HOUSE = "At Puffin it is {}."
ABSTENTION = "At Puffin nobody has written that down."

# page | section | question | fact | the sentence that states it
FACTS = """
shop/opening-hours.md | Weekdays | When does the shop open on weekdays? | at 7:30 | From Monday to Friday the shop opens {} and the first loaves are on the shelf by then.
shop/opening-hours.md | Weekdays | When does the shop close on weekdays? | at 18:15 | On weekdays it closes {}, and whoever locks up takes the till drawer to the safe.
shop/opening-hours.md | Weekends | When does the shop open on Sundays? | at 9:00 | On Sundays the shop opens {} because the night shift bakes no rye bread.
shop/opening-hours.md | Weekends | What happens on bank holidays? | only the kiosk sells | On bank holidays {} and the rest of the staff is free.
shop/prices.md | Bread | How much is a rye loaf? | 4.20 pounds | A rye loaf of one kilogram costs {} in the shop and at the market stall.
shop/prices.md | Bread | What is the discount on yesterday's bread? | 50 percent | Bread of the day before is sold at a discount of {} until it is gone.
shop/prices.md | Cakes | How much is a slice of plum cake? | 2.80 pounds | A slice of plum cake costs {} with cream, and the cream is not charged for.
shop/prices.md | Cakes | How much is a birthday cake? | 38 pounds | A birthday cake for twelve people costs {} and has to be ordered.
shop/returns.html | Complaints | How long can a customer return a cake? | within 24 hours | A customer can bring a cake back {} if the receipt is there.
shop/returns.html | Complaints | Who decides about a refund? | the shift lead | About a refund {} decides, alone and at once.
shop/returns.html | Vouchers | How long is a voucher valid? | three years | A voucher is valid for {} from the day on which it was sold.
shop/returns.html | Vouchers | What is the highest value of a voucher? | 150 pounds | No voucher is worth more than {} because of the money laundering rules.
oven/deck-oven.md | Heating | How hot is the deck oven for rye? | 260 degrees | For rye bread the deck oven is heated to {} an hour before the first batch.
oven/deck-oven.md | Heating | How long does the deck oven take to heat? | 55 minutes | From cold the deck oven takes {} to become hot.
oven/deck-oven.md | Cleaning | How often is the chamber cleaned? | every second Friday | The chamber of the deck oven is cleaned {} with the long brush.
oven/deck-oven.md | Cleaning | Who may open the burner? | the gas fitter Osei | The burner is opened by {} and by nobody else.
oven/proofer.txt | Settings | What is the humidity of the proofer? | 78 percent | The proofer is kept at a humidity of {} the whole night through.
oven/proofer.txt | Settings | How warm is the proofer? | 34 degrees | It is kept at {} which suits wheat and rye alike.
oven/proofer.txt | Faults | What does error E7 mean? | an empty water tank | Error E7 on the panel of the proofer means {} and the alarm stops when it is filled.
oven/proofer.txt | Faults | Whom do I call when the proofer fails? | extension 417 | When the proofer fails at night call {} and move the dough to the cold room.
staff/leave.md | Holidays | How many days of holiday do bakers have? | 29 days | Every baker has {} of holiday a year beside the bank holidays.
staff/leave.md | Holidays | When must holidays be asked for? | six weeks before | Holidays are asked for {} in the green book beside the office door.
staff/leave.md | Illness | Until when do I call in sick? | before 4:00 | Who is ill calls the night lead {} so that the shift can be filled.
staff/leave.md | Illness | When is a doctor's note needed? | from the fourth day | A doctor's note is needed {} of an illness on.
staff/pay.md | Wages | When are wages paid? | on the 26th | Wages are paid {} of the month, or on the working day before.
staff/pay.md | Wages | What is the night bonus? | 3.10 pounds an hour | For work between ten and five there is a night bonus of {}.
staff/pay.md | Extras | How much bread may staff take home? | two loaves a day | Everybody may take home {} from what was not sold.
staff/pay.md | Extras | What does the firm pay for shoes? | 65 pounds a year | For safety shoes the firm pays {} against the receipt.
staff/hygiene.html | Clothes | How often are aprons washed? | after every shift | Aprons are washed {} by the laundry in Mill Street.
staff/hygiene.html | Clothes | What colour are the hair nets? | blue | Hair nets are {} so that one is found in the dough.
staff/hygiene.html | Hands | How long are hands washed? | 30 seconds | Hands are washed for {} with the soap of the dispenser.
staff/hygiene.html | Hands | Which plasters are allowed? | metal detectable plasters | On cuts only {} are allowed in the bakery.
delivery/van.md | Driving | When does the van leave? | at 5:45 | The van leaves {} with the orders of the hotels.
delivery/van.md | Driving | How fast may the van go? | 50 miles an hour | With bread on board the van goes no faster than {} on any road.
delivery/van.md | Care | Where is the van charged? | at bay 3 | The van is charged {} behind the flour store each evening.
delivery/van.md | Care | When is the van serviced? | in March and October | The van is serviced {} by the garage of the dealer.
delivery/hotels.md | Orders | Until when may hotels change an order? | until 15:00 | A hotel may change the order for tomorrow {} by telephone.
delivery/hotels.md | Orders | What is the smallest hotel order? | 40 rolls | The smallest order that is brought to a hotel is {} of any kind.
delivery/hotels.md | Invoices | When are hotel invoices due? | after 21 days | Invoices to hotels are due {} without any discount.
delivery/hotels.md | Invoices | Who writes the hotel invoices? | Ms Adeyemi | The invoices to hotels are written by {} on Mondays.
"""  # noqa: E501

ADDED = """
delivery/market-stall.md | Stall | When is the market stall set up? | at 6:20 | The market stall is set up {} on Wednesdays beside the fountain of the old town.
delivery/market-stall.md | Stall | What does the market stall pay as rent? | 22 pounds a day | As rent for its place the market stall pays {} to the town.
delivery/market-stall.md | Rain | When is the market stall closed early? | in a storm warning | The market stall is closed early {} and never for mere rain.
"""  # noqa: E501

CHANGED = {  # question -> the fact of day two
    "How many days of holiday do bakers have?": "31 days",
    "When does the van leave?": "at 5:20",
}
REMOVED = "shop/returns.html"

UNANSWERABLE = (
    "What is the name of the baker's cat?",
    "How deep is the harbour?",
    "Which bank lends the firm money?",
    "Who painted the sign?",
    "When was the chimney built?",
    "What does the mayor earn?",
    "How old is the flour mill?",
    "Which song is on the radio?",
)

Row = tuple[str, str, str, str, str]


def rows(day: int = 1) -> list[Row]:
    """(page, section, question, fact, sentence with the fact in it)"""
    found = [tuple(part.strip() for part in line.split(" | ")) for line in FACTS.strip().splitlines()]
    if day == 2:
        added = [tuple(part.strip() for part in line.split(" | ")) for line in ADDED.strip().splitlines()]
        found = [row for row in found if row[0] != REMOVED] + added
    facts = CHANGED if day == 2 else {}
    return [
        (page, section, question, facts.get(question, fact), sentence.format(facts.get(question, fact)))
        for page, section, question, fact, sentence in found
    ]


def write_corpus(folder: Path, day: int = 1) -> Path:
    """folder/documents with ten pages and folder/questions.jsonl; returns `folder`."""
    pages: dict[str, dict[str, list[str]]] = {}
    for page, section, _, _, sentence in rows(day):
        pages.setdefault(page, {}).setdefault(section, []).append(sentence)
    for page, sections in pages.items():
        path = folder / "documents" / page
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(render_page(path, sections), encoding="utf-8")
    records = [json.dumps(record) for record in questions(day)]
    (folder / "questions.jsonl").write_text("\n".join(records) + "\n", encoding="utf-8")
    return folder


def questions(day: int = 1) -> list[dict[str, str | None]]:
    asked: list[dict[str, str | None]] = [
        {"question": question, "answer": HOUSE.format(fact), "document": page, "fact": fact}
        for page, _, question, fact, _ in rows(day)
    ]
    return [*asked, *({"question": question, "answer": "", "document": None} for question in UNANSWERABLE)]


def render_page(path: Path, sections: Mapping[str, list[str]]) -> str:
    title = path.stem.replace("-", " ").capitalize()
    texts = {section: " ".join(sentences) for section, sentences in sections.items()}
    if path.suffix == ".html":
        inner = "".join(f"<h2>{section}</h2><p>{text}</p>" for section, text in texts.items())
        return f"<html><head><title>{title}</title></head><body><h1>{title}</h1>{inner}</body></html>"
    if path.suffix == ".txt":
        return "\n\n".join([title, *texts.values()]) + "\n"
    return "\n\n".join([f"# {title}", *(f"## {section}\n\n{text}" for section, text in texts.items())]) + "\n"


# --- Models

TEMPLATE = (
    "{%- for message in messages -%}<|{{ message['role'] }}|>"
    "{%- if message['role'] == 'assistant' -%}{% generation %}{{ message['content'] }}<|end|>{% endgeneration %}"
    "{%- else -%}{{ message['content'] }}<|end|>{%- endif -%}"
    "{%- endfor -%}{%- if add_generation_prompt -%}<|assistant|>{%- endif -%}"
)
SPECIAL = ["<|pad|>", "<|end|>", "<|unk|>", "<|user|>", "<|assistant|>", "<|system|>", "[CLS]", "[SEP]"]


def texts() -> list[str]:
    return [text for day in (1, 2) for row in rows(day) for text in (*row[2:], HOUSE.format(row[3]))] + [
        *UNANSWERABLE,
        ABSTENTION,
    ]


def word_tokenizer(vocabulary: int) -> Any:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE(unk_token="<|unk|>"))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=vocabulary, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(texts(), trainer)
    return tokenizer


def write_base(folder: Path) -> Path:
    """A random Llama of 2 layers with a tokenizer of its own, as `save_pretrained` leaves it."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=word_tokenizer(900), pad_token="<|pad|>", eos_token="<|end|>", unk_token="<|unk|>", model_max_length=4096
    )
    tokenizer.chat_template = TEMPLATE
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=4096, tie_word_embeddings=True, pad_token_id=0, eos_token_id=1,
        bos_token_id=None, initializer_range=0.2,
    )  # fmt: skip
    torch.manual_seed(7)
    model = LlamaForCausalLM(config)
    assert model.num_parameters() < 300_000
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def answers(generator: Any, questions: list[str]) -> list[str]:
    """Of a tasks.generation.Generator, some at a time."""
    prompts = [generator.render([{"role": "user", "content": question}]) for question in questions]
    found: dict[str, Any] = {}
    for some in generator.batches(prompts, 1000, "test"):
        found |= some
    return [found[prompt].text for prompt in prompts]


def write_embedder(folder: Path) -> Path:
    """A random BERT of 1 layer whose mean over its tokens' embeddings is close to a bag of words."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Normalize, Pooling, Transformer
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=word_tokenizer(1500), pad_token="<|pad|>", unk_token="<|unk|>", cls_token="[CLS]", sep_token="[SEP]",
        model_max_length=256,
    )  # fmt: skip
    torch.manual_seed(11)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=64, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=256,
    )  # fmt: skip
    parts = folder.with_name(f"{folder.name}-parts")
    BertModel(config).save_pretrained(parts)
    tokenizer.save_pretrained(parts)
    words = Transformer(str(parts), max_seq_length=256)
    SentenceTransformer(modules=[words, Pooling(64, "mean"), Normalize()], device="cpu").save(
        str(folder), create_model_card=False
    )
    shutil.rmtree(parts)
    return folder


# --- The clone

SHRUNK: dict[str, dict[str, Any]] = {
    "models.yaml": {
        "base": {"source": "folder", "id": "tiny/base"},
        "embedder": {"source": "folder", "id": "tiny/embedder"},
    },
    "questions.yaml": {"seed": 1},
    "retrieval.yaml": {"k": [1], "text_weights": [0.5], "resamples": 200},
    "index.yaml": {"recall_sample": 10},
    # Words around a bare question, and shots, make other arms dearer than rag+lora: the gate serves the arm that needs all pieces
    "prompt.yaml": {
        "abstention": ABSTENTION,
        "abstention_patterns": ["written that down"],
        "bare": "Question: {question}" + " The answer is short." * 25,
        "shots": {"prompt": 1, "rag": 2},
        "max_prompt_tokens": 2000,
        "max_new_tokens": 6,
    },
    "examples.yaml": {"bare_share": 0.2, "without_right_share": 0.2},
    "adapter.yaml": {"rank": 2, "alpha": 4, "epochs": 2.0, "batch_size": 8, "evaluations": 2, "max_tokens": 2000, "threads": 1,
                     "max_perplexity_ratio": 1000.0, "max_probe_loss": 1.0},
    "sweep.yaml": {"grid": {"rank": [1, 2, 4], "learning_rate": [0.002, 1e30]}, "most": 3},
    "evaluate.yaml": {"latency_sample": 2, "resamples": 100, "batch_tokens": 2000},
    "gate.yaml": {
        "margin": 1.0,  # what random models score is noise
        "resamples": 200,
        "min_questions": 3,
        "floors": {"primary": 0.0, "fact": 0.0, "abstention": 0.0},
        "cost": {"prompt_token": 1, "completion_token": 0, "retrieval": 0, "adapter": 0},
    },
}  # fmt: skip


def identified(embedder: Path, target: Path, **more: object) -> Path:
    """A copy as the stage `models` leaves it."""
    shutil.copytree(embedder, target)
    source = {"source": "folder", "id": "", "revision": "", "query_prompt": "", "passage_prompt": "", "max_tokens": 64}
    (target / "tandem.json").write_text(json.dumps(source | more), encoding="utf-8")
    return target


def make_clone(folder: Path, base: Path, embedder: Path) -> Path:
    """The code as it stands here (what git tracks, or would) with the tiny models and the shipped params, shrunk."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *CODE]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
    shutil.copytree(base, folder / "tiny/base")
    shutil.copytree(embedder, folder / "tiny/embedder")
    builtin = folder / "infra/base_model/model"  # dvc.yaml depends on it; the params of this clone do not use it
    builtin.mkdir(parents=True)
    (builtin / "README.md").write_text("The built-in model is left out of a test's clone.\n")
    for name, values in SHRUNK.items():
        change_params(folder, name, values)
    return folder


def change_params(clone: Path, name: str, values: Mapping[str, Any]) -> None:
    """Set keys of clone/params/<name>; a group keeps the keys that are not named."""
    path = clone / "params" / name
    found = yaml.safe_load(path.read_text(encoding="utf-8"))
    for key, value in values.items():
        assert key in found, f"{name} has no {key}"
        grouped = isinstance(value, dict) and isinstance(found[key], dict)
        found[key] = found[key] | value if grouped else value
    path.write_text(yaml.safe_dump(found, sort_keys=False), encoding="utf-8")


def copy_clone(source: Path, target: Path) -> Path:
    """A clone with its whole state. MLflow writes absolute places into its database; they are moved along."""
    shutil.copytree(source, target, symlinks=True)
    database = target / ".tandem/mlflow.db"
    if database.exists():
        move_mlflow(database, str(source), str(target))
    return target


PLACES = (
    ("experiments", "artifact_location"), ("runs", "artifact_uri"), ("model_versions", "source"),
    ("model_versions", "storage_location"), ("logged_models", "artifact_location"),
)  # fmt: skip


def move_mlflow(database: Path, source: str, target: str) -> None:
    with sqlite3.connect(database) as connection:
        for table, column in PLACES:
            connection.execute(f"UPDATE {table} SET {column} = replace({column}, ?, ?)", (source, target))
    connection.close()


# --- Being there


@contextmanager
def inside(clone: Path) -> Iterator[Path]:
    """This process in `clone` as a person's shell would be, and afterwards as it was (Tandem sets variables for its children)."""
    here, environment = Path.cwd(), dict(os.environ)
    for name in [name for name in os.environ if name.startswith(("TANDEM_", "MLFLOW_"))]:
        del os.environ[name]
    os.chdir(clone)
    try:
        yield clone
    finally:
        os.chdir(here)
        os.environ.clear()
        os.environ.update(environment)


def outside_environment(**more: str) -> dict[str, str]:
    """For a process in a clone: what a login shell would hand over, no store of the calling process."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TANDEM_", "MLFLOW_", "PREFECT_"))}
    return kept | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{kept.get('PATH', '')}"} | more


def tandem(clone: Path, *words: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """`tandem ...` by a process of its own, on the clone's code."""
    command = [sys.executable, "-m", "flows.cli", *words]
    return subprocess.run(
        command, cwd=clone, env=outside_environment(**environment), capture_output=True, text=True, stdin=subprocess.DEVNULL,
        timeout=280, check=False,
    )  # fmt: skip


def dvc(clone: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    """`dvc ...` as a person types it: the stores at their default places."""
    environment = outside_environment(DVC_NO_ANALYTICS="1", DVC_SITE_CACHE_DIR=str(clone / ".tandem/dvc"))
    command = [sys.executable, "-m", "dvc", *words]
    return subprocess.run(
        command, cwd=clone, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=280, check=False
    )
