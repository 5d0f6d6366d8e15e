"""Train the base model: rungs of rising difficulty, each left once the first answer token is right often enough."""

import argparse
import json
import random
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import yaml
from tokenizers import Tokenizer
from torch import Tensor
from transformers import Lfm2ForCausalLM

import examples
import network
import tokenizer as pieces
from mixture import Sampler


def batches(encoded: list[examples.Encoded], tokens: int, rng: random.Random) -> list[list[examples.Encoded]]:
    """Batches of like lengths, of about `tokens` tokens each with the padding, in random order."""
    ordered = sorted(encoded, key=lambda item: len(item.ids))
    found: list[list[examples.Encoded]] = [[]]
    for item in ordered:
        if (len(found[-1]) + 1) * len(item.ids) > tokens:
            found.append([])
        found[-1].append(item)
    rng.shuffle(found)
    return found


def padded(batch: list[examples.Encoded]) -> tuple[Tensor, Tensor, Tensor]:
    """Ids, roles and marks, each [batch, time], padded on the right."""
    length = max(len(item.ids) for item in batch)
    ids, roles, marks = (np.full((len(batch), length), fill) for fill in (0, 0, -1))
    for row, item in enumerate(batch):
        ids[row, : len(item.ids)], roles[row, : len(item.ids)], marks[row, : len(item.ids)] = (
            item.ids,
            item.roles,
            item.marks,
        )
    return torch.from_numpy(ids), torch.from_numpy(roles), torch.from_numpy(marks)


def candidates(ids: Tensor, vocabulary: int, extra: int) -> tuple[Tensor, Tensor]:
    """The pieces of the batch and some others, and for each id its row among them: the output layer over these alone
    costs a tenth, and what an answer must be told apart from is mostly in its own prompt."""
    rows = torch.cat((ids.flatten(), torch.randint(vocabulary, (extra,)))).unique()
    place = torch.zeros(vocabulary, dtype=torch.long)
    place[rows] = torch.arange(len(rows))
    return rows, place


def losses(
    model: Lfm2ForCausalLM, probe: torch.nn.Linear, batch: list[examples.Encoded], params: dict
) -> tuple[Tensor, Tensor, Tensor]:
    """The loss; the rows of first answer tokens; and whether each of them is right.

    Beside the answer, a probe on a middle layer says of each prompt token whether it lies in the sentence that answers
    and in the value: a dense signal for addressing, where the answer alone gives one token in a hundred. The probe is
    not part of the model that is saved.
    """
    ids, roles, marks = padded(batch)
    targets, roles = ids[:, 1:], roles[:, 1:]
    chosen = (roles > 0) | ((targets != 0) & (torch.rand(roles.shape) < params["other_share"]))
    rows, place = candidates(ids, model.config.vocab_size, params["extra_candidates"])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        states, middle = network.hidden_states(model, ids, params["mark_layer"])
        scores = network.logits(model, states[:, :-1][chosen], rows).float()
        marked = probe(middle)[marks >= 0].float()
    wanted = place[targets[chosen]]
    each = F.cross_entropy(scores, wanted, reduction="none")
    role = roles[chosen]
    weight = torch.tensor([params["other_weight"], 1.0, 2.0, params["repeat_weight"]])[role]
    weighted = (each * weight).sum() / weight.sum()
    known = marks[marks >= 0]
    truth = torch.stack((known >= 1, known == 2), dim=1).float()
    mark_loss = F.binary_cross_entropy_with_logits(marked, truth)
    first = role == 2
    right = (scores.argmax(1) == wanted)[first]
    return weighted + params["mark_weight"] * mark_loss, chosen.nonzero()[:, 0][first], right.detach()


def optimizers(model: Lfm2ForCausalLM, probe: torch.nn.Module, params: dict) -> list[torch.optim.Optimizer]:
    """Muon for the matrices, AdamW for gains, convolution taps and the probe."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    matrices = [parameter for parameter in trained if parameter.ndim == 2]
    rest = [parameter for parameter in trained if parameter.ndim != 2] + list(probe.parameters())
    return [
        torch.optim.Muon(matrices, lr=params["muon_rate"], weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, lr=params["adam_rate"], weight_decay=0.0, betas=(0.9, 0.98)),
    ]


def rate_factor(step: int, params: dict) -> float:
    """Warm-up (from `begin`, where a finished run goes on), constant, then linear to a twentieth at `steps`."""
    warm = min(1.0, (step + 1 - params["begin"]) / params["warmup"])
    left = (params["steps"] - step) / max(1, params["steps"] - params["decay_from"])
    return warm * max(0.05, min(1.0, left))


class Run:
    """The state of a training: model, probe, optimisers and counters, saved and restored together."""

    def __init__(self, params: dict, model: Lfm2ForCausalLM, sampler: Sampler, folder: Path) -> None:
        self.params, self.model, self.sampler, self.folder = params, model, sampler, folder
        self.probe = torch.nn.Linear(model.config.hidden_size, 2)
        self.optimizers = optimizers(model, self.probe, params)
        self.step = self.tokens = 0
        self.right: dict[str, list[float]] = defaultdict(list)
        self.losses: list[float] = []

    def restore(self, path: Path) -> None:
        saved = torch.load(path, weights_only=False)
        self.model.load_state_dict(saved["model"])
        self.probe.load_state_dict(saved["probe"])
        for optimizer, state in zip(self.optimizers, saved["opts"], strict=True):
            optimizer.load_state_dict(state)
        self.step, self.tokens, self.sampler.stage = saved["step"], saved["tokens"], saved["stage"]

    def save(self) -> None:
        state = {
            "model": self.model.state_dict(),
            "probe": self.probe.state_dict(),
            "opts": [optimizer.state_dict() for optimizer in self.optimizers],
            "step": self.step,
            "tokens": self.tokens,
            "stage": self.sampler.stage,
        }
        torch.save(state, self.folder / "last.tmp")
        (self.folder / "last.tmp").replace(self.folder / "last.pt")

    def update(self, batch: list[examples.Encoded]) -> None:
        """One step on one batch."""
        factor = rate_factor(self.step, self.params)
        for optimizer, rate in zip(self.optimizers, ("muon_rate", "adam_rate"), strict=True):
            optimizer.param_groups[0]["lr"] = self.params[rate] * factor
        loss, rows, right = losses(self.model, self.probe, batch, self.params)
        loss.backward()
        trained = [parameter for optimizer in self.optimizers for parameter in optimizer.param_groups[0]["params"]]
        torch.nn.utils.clip_grad_norm_(trained, 2.0)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        self.step += 1
        self.tokens += sum(len(item.ids) for item in batch)
        self.losses.append(loss.item())
        for row, ok in zip(rows.tolist(), right.tolist(), strict=True):
            self.right[batch[row].kind].append(float(ok))

    def recent(self) -> dict[str, list[float]]:
        return {kind: flags[-400:] for kind, flags in self.right.items()}

    def log(self, began: float) -> None:
        first = {kind: round(float(np.mean(flags)), 3) for kind, flags in self.recent().items()}
        loss = round(float(np.mean(self.losses)), 4)
        line = {"step": self.step, "tokens": self.tokens, "loss": loss, "seconds": round(time.time() - began)}
        with (self.folder / "log.jsonl").open("a", encoding="utf-8") as log:
            log.write(json.dumps(line | {"stage": self.sampler.stage, "first": first}) + "\n")
        self.losses.clear()


def train(run: Run, tokenizer: Tokenizer) -> None:
    """Train up to the run's number of steps; a line of log every 20 steps, a checkpoint every 100."""
    params = run.params
    rng = random.Random(params["seed"] * 1000003 + run.step)
    torch.manual_seed(params["seed"] + run.step)
    began = time.time()
    while run.step < params["steps"]:
        pool = examples.encode(tokenizer, run.sampler.draw(rng, params["pool"]))
        for batch in batches(pool, params["batch_tokens"], rng)[: params["steps"] - run.step]:
            run.update(batch)
            if run.step % 20 == 0:
                run.log(began)
            if run.step % 100 == 0 or run.step == params["steps"]:
                run.save()
        if run.sampler.advance(run.recent()):
            run.right.clear()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", help="a section of params.yaml beside 'training' that overrides it")
    parser.add_argument("--resume", type=Path)
    parser.add_argument("--out", type=Path, default=Path("work"))
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    torch.set_flush_denormal(True)
    everything = yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))
    params = everything["training"] | everything["runs"][arguments.run]
    shape = everything["network"]
    tokenizer, sources = pieces.build(**everything["tokenizer"])
    rows = torch.from_numpy(pieces.embeddings(sources, shape["width"], shape["identity"], params["seed"]))
    model = network.build(shape, rows, params["seed"])
    folder = arguments.out / arguments.run
    folder.mkdir(parents=True, exist_ok=True)
    run = Run(params, model, Sampler(params["stages"]), folder)
    start = folder / "last.pt" if (folder / "last.pt").exists() else arguments.resume
    if start:
        run.restore(start)
    train(run, tokenizer)


if __name__ == "__main__":
    main()
