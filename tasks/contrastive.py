"""The embedder's fine-tuning: LoRA, so that each question comes nearer to its passage than to the wrong ones beside it.

The loss is sentence-transformers' MultipleNegativesRankingLoss (InfoNCE; van den Oord et al. 2018). Wrong are the passages of the
other questions in a batch, and the mined ones (tasks.retriever).
"""

import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.backends import Vectors, sentence_model
from tasks.errors import InputError, RefusedError
from tasks.params import RetrieverParams
from tasks.stage import measure, say

ADVICE = "in params/retriever.yaml"
LOGGED = 10  # points of the curve


@dataclass(frozen=True)
class Lesson:
    """A question, the passage that answers it, and the nearest ones that do not: as many for every question of a run."""

    question: str
    passage: str
    wrong: tuple[str, ...]


def tune(
    folder: Path, out: Path, lessons: Sequence[Lesson], fixed: Vectors | None, prompts: tuple[str, str], max_tokens: int,
    params: RetrieverParams,
) -> dict[str, float]:  # fmt: skip
    """Write the embedder of `folder`, tuned, to `out` as sentence-transformers saves one. Returns what proves that it learnt.

    `fixed`: the vectors of the lessons' passages, (lessons, 1 + wrong, dimension), where questions alone are tuned; None where
    both sides are. `prompts`: of questions, of passages. Raises RefusedError where a loss is no number or no weight has changed.
    """
    import torch
    from peft import LoraConfig, get_peft_model

    if params.threads:
        torch.set_num_threads(params.threads)
    torch.manual_seed(params.seed)  # LoRA's A is drawn before the trainer sets its seed
    model = sentence_model(folder).float()
    model.max_seq_length = min(max_tokens, model.max_seq_length or max_tokens)
    words = transformer(model)
    config = LoraConfig(r=params.rank, lora_alpha=params.alpha, target_modules=params.targets)
    try:
        words.model = get_peft_model(words.model, config)
    except ValueError as error:  # a name that no layer has; PEFT says which
        raise InputError(f"targets {ADVICE}: {error}") from error
    with tempfile.TemporaryDirectory(prefix="tandem-retriever-") as workspace:
        trainer = make_trainer(model, lessons, fixed, prompts, Path(workspace), params)
        loss = trainer.train().training_loss
    proof = prove(words.model) | {"steps": int(trainer.state.global_step), "loss": round(float(loss), 4)}
    words.model = words.model.merge_and_unload()
    model.save(str(out), create_model_card=False)
    return proof


def transformer(model: Any) -> Any:
    """The module of a sentence-transformers model that holds layers to tune."""
    from transformers import PreTrainedModel

    found = [module for module in model if isinstance(getattr(module, "model", None), PreTrainedModel)]
    if not found:
        raise InputError(f"this embedder has no transformer that LoRA could tune; set sides: none {ADVICE}")
    return found[0]


def make_trainer(
    model: Any, lessons: Sequence[Lesson], fixed: Vectors | None, prompts: tuple[str, str], workspace: Path,
    params: RetrieverParams,
) -> Any:  # fmt: skip
    from datasets import Dataset
    from sentence_transformers import SentenceTransformerTrainer
    from transformers import PrinterCallback

    columns = {"question": [lesson.question for lesson in lessons], "passage": [lesson.passage for lesson in lessons]}
    columns |= {f"wrong_{place}": [lesson.wrong[place] for lesson in lessons] for place in range(len(lessons[0].wrong))}
    asked_for = dict.fromkeys(columns, prompts[1]) | {"question": prompts[0]}
    trainer = SentenceTransformerTrainer(
        model,
        args=configuration(asked_for, len(lessons), workspace, params),
        train_dataset=Dataset.from_dict(columns | {"label": list(range(len(lessons)))}),
        loss=make_loss(model, fixed, params.scale),
        callbacks=[progress()],
    )
    trainer.remove_callback(PrinterCallback)  # prints dicts; progress says it in words
    return trainer


def configuration(prompts: dict[str, str], lessons: int, workspace: Path, params: RetrieverParams) -> Any:
    import torch
    from sentence_transformers import SentenceTransformerTrainingArguments
    from sentence_transformers.training_args import BatchSamplers

    steps = math.ceil(lessons / params.batch_size * params.epochs)
    return SentenceTransformerTrainingArguments(
        output_dir=str(workspace),
        prompts=prompts if any(prompts.values()) else None,
        num_train_epochs=params.epochs,
        per_device_train_batch_size=params.batch_size,
        learning_rate=params.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=params.warmup_steps,
        batch_sampler=BatchSamplers.NO_DUPLICATES,  # beside another question that it answers too, a passage would count as wrong
        eval_strategy="no",
        save_strategy="no",
        logging_steps=max(1, steps // LOGGED),
        seed=params.seed,
        data_seed=params.seed,
        use_cpu=not torch.cuda.is_available(),
        dataloader_pin_memory=torch.cuda.is_available(),
        report_to="none",
        disable_tqdm=True,
    )


def make_loss(model: Any, fixed: Vectors | None, scale: float) -> Any:
    import torch
    from sentence_transformers.losses import MultipleNegativesRankingLoss

    if fixed is None:
        return MultipleNegativesRankingLoss(model, scale=scale)
    vectors = torch.tensor(fixed)  # (lessons, 1 + wrong, dimension)

    class QuestionsAlone(MultipleNegativesRankingLoss):  # type: ignore[misc]
        """The passages stay where the index has them: their vectors are looked up, by the number of the lesson."""

        def forward(self, sentence_features: Any, labels: Any) -> Any:
            questions = self.model(next(iter(sentence_features)))["sentence_embedding"]  # (batch, dimension)
            passages = vectors[labels.cpu()].to(questions.device)  # (batch, 1 + wrong, dimension)
            return self.compute_loss_from_embeddings([questions, *passages.unbind(dim=1)], labels)

    return QuestionsAlone(model, scale=scale)


def progress() -> Any:
    from transformers import TrainerCallback

    class Progress(TrainerCallback):  # type: ignore[misc]
        """Every logged point goes to whoever watches, at once; a loss that is no number stops the run."""

        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
            loss = (logs or {}).get("loss")
            if loss is not None:
                check_finite(loss, state.global_step)
                measure(state.global_step, train_loss=loss)
                say(f"step {state.global_step} of {state.max_steps}: loss {loss:.3f}")

    return Progress()


def check_finite(loss: float, step: int) -> None:
    if not math.isfinite(loss):
        raise RefusedError(f"the loss is {loss} at step {step}: training diverged. Lower learning_rate {ADVICE}")


def prove(model: Any) -> dict[str, float]:
    """LoRA starts with B = 0, which changes nothing. Raises RefusedError where it still does, or is no number."""
    norms = [float(weight.detach().norm()) for name, weight in model.named_parameters() if "lora_B" in name]
    if not norms or not all(map(math.isfinite, norms)):
        raise RefusedError(f"the tuned embedder has weights that are no numbers; lower learning_rate {ADVICE}")
    if max(norms) == 0:
        raise RefusedError(f"the embedder learnt nothing (every B is 0); check learning_rate and targets {ADVICE}")
    trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    return {"lora_b_norm": round(math.sqrt(sum(norm**2 for norm in norms)), 6), "trainable_parameters": trained}
