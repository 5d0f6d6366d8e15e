"""What can be known to be wrong before anything runs: every params file, and what two of them say together."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import cast

from flows.addresses import prefect_address
from flows.settings import Settings, shown
from tasks.errors import InputError
from tasks.params_files import Params, load
from tasks.params_verdict import EvaluateParams, GateParams, JudgeParams

LEAST_FREE = 50_000_000  # bytes, of the state's disk
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")


def check_params(folder: Path) -> None:
    """Raises InputError with every fault of every file: the last stage's typo is not found after an hour of training."""
    faults: list[str] = []
    found: dict[type[Params], Params] = {}
    for kind in Params.__subclasses__():
        try:
            found[kind] = load(kind, folder)
        except InputError as error:
            faults.append(str(error))
    if EvaluateParams in found and GateParams in found:
        faults += disagreements(cast(EvaluateParams, found[EvaluateParams]), cast(GateParams, found[GateParams]))
    if EvaluateParams in found:
        faults += unusable_rules(cast(EvaluateParams, found[EvaluateParams]), folder.parent)
        faults += unusable_engine(cast(EvaluateParams, found[EvaluateParams]))
    if JudgeParams in found:
        faults += unusable_labels(cast(JudgeParams, found[JudgeParams]), folder.parent)
    if faults:
        raise InputError("\n".join(faults))


def unusable_rules(evaluate: EvaluateParams, root: Path) -> list[str]:
    """A function that is not there would be missed after the last answer."""
    from tasks.rules import own_rules

    return refusal(lambda: own_rules(evaluate.rules, root))


def unusable_engine(evaluate: EvaluateParams) -> list[str]:
    """Where it is one that is not ours."""
    if evaluate.engine == "transformers":
        return []
    from tasks.vllm_engine import vllm_version

    return refusal(vllm_version)


def unusable_labels(judge: JudgeParams, root: Path) -> list[str]:
    """Where a judge is to be asked."""
    if not judge.model or not judge.labels:
        return []
    from flows.judging import read_labels

    return refusal(lambda: read_labels(root, judge))


def refusal(check: Callable[[], object]) -> list[str]:
    """What is wrong, or nothing."""
    try:
        check()
    except InputError as error:
        return [str(error)]
    return []


def check_approval(settings: Settings) -> None:
    """Raises InputError, before hours are spent, where a person is to be asked on a server that ends with this process."""
    from prefect.settings import PREFECT_API_URL

    if settings.approval and not PREFECT_API_URL.value():
        raise InputError(
            "TANDEM_APPROVAL=1 asks a person in the Prefect UI, but no Prefect server is named, so nobody could answer. Start "
            f"one (make up) and set PREFECT_API_URL={shown(prefect_address())}/api, or unset TANDEM_APPROVAL"
        )


def check_adapter_folder(folder: Path) -> None:
    """Raises InputError where it is no adapter, or holds what a model must not, before anything is brought up to date for it."""
    from tasks.artifacts import check_model_folder  # numpy comes with it, which `tandem plan` does without

    check_model_folder(folder)
    missing = [name for name in ADAPTER_FILES if not (folder / name).is_file()]
    if missing:
        raise InputError(f"{folder} is not an adapter: it has no {' and no '.join(missing)}; save one with save_pretrained()")


def check_space(folder: Path) -> None:
    """Raises InputError where not even the databases fit: their servers would fail in words of their own, after minutes."""
    free = shutil.disk_usage(folder).free
    if free < LEAST_FREE:
        raise InputError(
            f"no space: {free / 1e6:.0f} MB are free at {folder}, a flow needs {LEAST_FREE / 1e6:.0f} MB and more; free some ("
            "tandem maintain drops old releases), or point TANDEM_HOME at a larger disk"
        )


def disagreements(evaluate: EvaluateParams, gate: GateParams) -> list[str]:
    """A weight on a score that nothing measures would be given to every arm for nothing."""
    if evaluate.style or not gate.primary.style:
        return []
    weight = f"params/gate.yaml: primary.style: {gate.primary.style:g}"
    return [f"{weight} weighs the house voice, but `style` in params/evaluate.yaml has no rule; add one, or set the weight to 0"]
