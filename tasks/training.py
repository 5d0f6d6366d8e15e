"""The training loop: an adapter's weights from tokenised examples, on one processor or many, to be stopped and gone on with.

Every step is a function of the weights before it and its number (order and random numbers are drawn anew from seed and step), so
that a training which was interrupted ends in the same bytes on one CPU thread.
"""

import math
import resource
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from tasks.batches import Example, by_length, summed_loss, tensors
from tasks.checkpoints import Checkpoints, Progress, Tensors
from tasks.errors import PreemptedError
from tasks.guards import check_finite
from tasks.params import AdapterParams
from tasks.stage import measure, say

CLIP = 1.0  # largest norm of a step's gradient, as transformers and TRL have it
LOGGED_PER_EVALUATION = 4


@dataclass(frozen=True)
class Trainer:
    """`accelerator`: of accelerate; it knows the device and the other processes. Each of them holds the whole model."""

    model: Any
    padding: int
    train: Sequence[Example]
    validation: Sequence[Example]
    params: AdapterParams
    accelerator: Any
    arithmetic: Callable[[], AbstractContextManager[Any]]

    @property
    def weights(self) -> dict[str, Any]:
        return {name: weight for name, weight in self.model.named_parameters() if weight.requires_grad}

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(len(self.train) / self.params.batch_size)

    @property
    def steps(self) -> int:
        return max(1, int(self.steps_per_epoch * self.params.epochs))

    def points(self, count: int) -> set[int]:
        """Steps after which something is due, `count` times over the training and at its end."""
        return {round(self.steps * number / count) for number in range(1, count + 1)} - {0}


@dataclass(frozen=True)
class Step:
    """One update: loss per token, norm of the gradient, tokens and tokens with padding (of all processes)."""

    loss: float
    norm: float
    tokens: int
    padded: int
    seconds: float


def run(trainer: Trainer, checkpoints: Checkpoints, stopping: Callable[[], bool]) -> Progress:
    """Train; the model is left with the best weights. Raises PreemptedError, with a checkpoint written, where it has to stop."""
    optimizer, progress, best = begin(trainer, checkpoints)
    patience, evaluations = trainer.params.patience, trainer.points(trainer.params.evaluations)
    taken: list[Step] = []
    if not progress.curve:
        evaluate(trainer, progress)
    while progress.step < trainer.steps and progress.worse < patience:
        taken.append(take_step(trainer, optimizer, progress.step))
        progress.count(taken[-1].tokens, taken[-1].padded, taken[-1].seconds)
        if progress.step in trainer.points(LOGGED_PER_EVALUATION * len(evaluations)):
            report(trainer, progress, taken)
            taken = []
        if progress.step in evaluations and judge(progress, evaluate(trainer, progress)):
            best = copied(trainer.weights)
        stop = together(trainer, stopping())
        if stop or progress.step in evaluations:
            save(trainer, optimizer, progress, best, checkpoints)
        if stop:
            raise PreemptedError(
                f"training was asked to stop and did, after step {progress.step} of {trainer.steps}. Its progress is kept: run "
                "the same command again and it goes on from there"
            )
    put(trainer.weights, best)
    return progress


def begin(trainer: Trainer, checkpoints: Checkpoints) -> tuple[Any, Progress, Tensors]:
    """An optimizer and where to go on: at the newest checkpoint, or at the start."""
    import torch

    weights = trainer.weights
    rate = trainer.params.learning_rate
    optimizer = torch.optim.AdamW(list(weights.values()), lr=rate, weight_decay=0.0, fused=True)
    found = checkpoints.newest() if trainer.accelerator.is_main_process else None
    found = shared(trainer, found)
    if found is None:
        return optimizer, Progress(), copied(weights)
    progress, parts = found
    put(weights, parts["weights"])
    for name, weight in weights.items():
        optimizer.state[weight] = {
            "step": torch.tensor(float(progress.step), device=weight.device),
            "exp_avg": parts["first_moments"][name].to(weight.device),
            "exp_avg_sq": parts["second_moments"][name].to(weight.device),
        }
    tell(trainer, f"going on after step {progress.step} of {trainer.steps}")
    return optimizer, progress, parts["best"]


def save(trainer: Trainer, optimizer: Any, progress: Progress, best: Tensors, checkpoints: Checkpoints) -> None:
    if not trainer.accelerator.is_main_process:
        return
    weights, moments = trainer.weights, optimizer.state
    checkpoints.write(
        progress,
        {
            "weights": copied(weights),
            "best": best,
            "first_moments": {name: moments[weight]["exp_avg"] for name, weight in weights.items()},
            "second_moments": {name: moments[weight]["exp_avg_sq"] for name, weight in weights.items()},
        },
    )


def take_step(trainer: Trainer, optimizer: Any, step: int) -> Step:
    """One update.

    The examples of a step are run a few at a time, those of like lengths together. Their gradients add up to that of the whole
    batch, so it only changes how much is computed on padding.
    """
    import torch

    params, own, started = trainer.params, trainer.accelerator, time.monotonic()
    batch = batch_of(trainer, step)
    answers = sum(example.answer for example in batch)
    torch.manual_seed(params.seed * 1_000_003 + step * own.num_processes + own.process_index)  # of dropout
    trainer.model.train()
    optimizer.zero_grad()
    loss, padded = torch.zeros((), device=own.device), 0
    for few in by_length(batch[own.process_index :: own.num_processes], params.batch_tokens):
        made = tensors(few, trainer.padding, own.device)
        padded += made["input_ids"].numel()
        with trainer.arithmetic():
            part = summed_loss(trainer.model, made) / answers
        part.backward()
        loss += part.detach()
    weights = list(trainer.weights.values())
    total = add_up(trainer, weights, loss)
    norm = float(torch.nn.utils.clip_grad_norm_(weights, CLIP))
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(params, step, trainer.steps)
    check_finite({"loss": total, "gradient norm": norm}, step + 1)
    optimizer.step()
    return Step(total, norm, sum(map(len, batch)), padded * own.num_processes, time.monotonic() - started)


def batch_of(trainer: Trainer, step: int) -> list[Example]:
    """The examples of a step, over all processes: each epoch is a new order."""
    import torch

    epoch, place = divmod(step, trainer.steps_per_epoch)
    generator = torch.Generator().manual_seed(trainer.params.seed * 1_000_003 + epoch)
    order = torch.randperm(len(trainer.train), generator=generator).tolist()
    size = trainer.params.batch_size
    return [trainer.train[number] for number in order[place * size : (place + 1) * size]]


def learning_rate(params: AdapterParams, step: int, steps: int) -> float:
    """As transformers' schedulers of these names have it, but for the first step, which is not spent on a rate of 0."""
    if step < params.warmup_steps:
        return params.learning_rate * (step + 1) / params.warmup_steps
    share = (step - params.warmup_steps) / max(1, steps - params.warmup_steps)
    left = {"constant": 1.0, "linear": 1 - share, "cosine": 0.5 * (1 + math.cos(math.pi * share))}
    return params.learning_rate * left[params.schedule]


def add_up(trainer: Trainer, weights: list[Any], loss: Any) -> float:
    """Sum gradients and loss over the processes: the adapter is small, so one message does."""
    import torch

    if trainer.accelerator.num_processes > 1:
        for weight in weights:
            weight.grad = torch.zeros_like(weight) if weight.grad is None else weight.grad
        flat = torch.cat([*(weight.grad.flatten() for weight in weights), loss.reshape(1).to(weights[0].dtype)])
        summed = trainer.accelerator.reduce(flat, "sum")
        torch.nn.utils.vector_to_parameters(summed[:-1], [weight.grad for weight in weights])
        loss = summed[-1]
    return float(loss)


def evaluate(trainer: Trainer, progress: Progress) -> float:
    """Validation loss per token of an answer, noted in the curve."""
    loss = mean_loss(trainer, trainer.validation)
    check_finite({"validation loss": loss}, progress.step)
    note(trainer, progress, validation_loss=loss)
    tell(trainer, f"step {progress.step} of {trainer.steps}: validation loss {loss:.3f}")
    return loss


def mean_loss(trainer: Trainer, examples: Sequence[Example]) -> float:
    """Negative log-likelihood per scored token, over all processes."""
    import torch

    own = trainer.accelerator
    trainer.model.eval()
    batches = by_length(examples, trainer.params.batch_tokens)[own.process_index :: own.num_processes]
    summed = 0.0
    with torch.no_grad(), trainer.arithmetic():
        for batch in batches:
            summed += float(summed_loss(trainer.model, tensors(batch, trainer.padding, own.device)))
    total = own.reduce(torch.tensor(summed, dtype=torch.float64, device=own.device), "sum")
    return float(total) / sum(example.answer for example in examples)


def judge(progress: Progress, loss: float) -> bool:
    """Whether this is the best so far; the untrained adapter does not count."""
    better = progress.best_loss is None or loss < progress.best_loss
    if better:
        progress.best_step, progress.best_loss, progress.worse = progress.step, loss, 0
    else:
        progress.worse += 1
    return better


def report(trainer: Trainer, progress: Progress, taken: Sequence[Step]) -> None:
    """The steps since the last line of the log, as one."""
    loss = sum(step.loss for step in taken) / len(taken)
    speed = sum(step.tokens for step in taken) / sum(step.seconds for step in taken)
    rate = learning_rate(trainer.params, progress.step - 1, trainer.steps)
    values = {"train_loss": loss, "learning_rate": rate, "gradient_norm": taken[-1].norm, "tokens_per_second": speed}
    note(trainer, progress, **values, memory_mb=peak_memory_mb())
    tell(trainer, f"step {progress.step} of {trainer.steps}: train loss {loss:.3f}, {speed:.0f} tokens/s")


def note(trainer: Trainer, progress: Progress, **values: float) -> None:
    """A point of the curve: kept, and shown to whoever watches while it happens."""
    progress.curve.append({"step": progress.step, **values})
    if trainer.accelerator.is_main_process:
        measure(progress.step, **values)


def tell(trainer: Trainer, message: str) -> None:
    if trainer.accelerator.is_main_process:
        say(message)


def peak_memory_mb() -> float:
    """Of the accelerator where there is one, else of this process, in 10^6 bytes."""
    import torch

    if torch.cuda.is_available():
        return float(torch.cuda.max_memory_allocated()) / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6  # Linux counts in KiB


# --- Values that cross processes or files


def together(trainer: Trainer, stop: bool) -> bool:
    """Whether any process was asked: they stop at the same step or wait for each other for ever."""
    import torch

    if trainer.accelerator.num_processes == 1:
        return stop
    asked = torch.tensor(float(stop), device=trainer.accelerator.device)
    return bool(trainer.accelerator.reduce(asked, "sum") > 0)


def shared(trainer: Trainer, value: Any) -> Any:
    """What the first process found, for all: the checkpoints may lie on its disk alone."""
    if trainer.accelerator.num_processes == 1:
        return value
    from accelerate.utils import broadcast_object_list

    return broadcast_object_list([value])[0]


def copied(weights: dict[str, Any]) -> Tensors:
    return {name: weight.detach().cpu().clone() for name, weight in weights.items()}


def put(weights: dict[str, Any], values: Tensors) -> None:
    import torch

    with torch.no_grad():
        for name, weight in weights.items():
            weight.copy_(values[name])
