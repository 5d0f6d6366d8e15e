"""What a sweep tries, and which trial wins."""

import shlex
from pathlib import Path

import pytest
import tiny

from flows.trials import command
from tasks.errors import InputError
from tasks.params import AdapterParams, SweepParams
from tasks.params_files import load
from tasks.sweep import Trial, choose, combinations

ADAPTER = load(AdapterParams, tiny.ROOT / "params")
SHIPPED = load(SweepParams, tiny.ROOT / "params")


def grid(most: int = 9, **values: list[object]) -> SweepParams:
    return SHIPPED.model_copy(update={"grid": values, "most": most})


def test_what_is_in_use_is_tried_first_and_once() -> None:
    tried = combinations(grid(rank=[8, ADAPTER.rank], learning_rate=[0.001, ADAPTER.learning_rate]), ADAPTER)
    assert tried[0] == {} and len(tried) == 4
    assert {"rank": ADAPTER.rank, "learning_rate": ADAPTER.learning_rate} not in tried


def test_a_large_grid_is_drawn_from_by_the_seed() -> None:
    params = grid(most=5, rank=[1, 2, 4, 8], learning_rate=[0.1, 0.2, 0.3], dropout=[0.0, 0.1])
    tried = combinations(params, ADAPTER)
    assert len(tried) == 6 and tried == combinations(params, ADAPTER)
    assert tried != combinations(params.model_copy(update={"seed": 2}), ADAPTER)


USED = Trial({}, 1.000, 1000, 60)


def test_what_is_in_use_stays_unless_another_is_better_by_more_than_the_tolerance() -> None:
    found = choose([USED, Trial({"rank": 32}, 0.995, 2000, 80)], 0.01)
    assert found.trial is USED and "stays" in found.reason and "rank=32" in found.reason
    assert choose([USED, Trial({"rank": 32}, 0.98, 2000, 80)], 0.01).trial.values == {"rank": 32}


def test_among_equals_the_smaller_adapter_wins() -> None:
    large, small = Trial({"rank": 32}, 0.900, 2000, 80), Trial({"rank": 8}, 0.905, 500, 50)
    found = choose([USED, large, small], 0.01)
    assert found.trial is small and "the smallest of those within 1% of the lowest" in found.reason
    assert choose([USED, large, small], 0.001).trial is large


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("grid: {rnak: [8]}", "no key of params/adapter.yaml"),
        ("grid: {rank: [0]}", "greater than or equal to 1"),
        ("grid: {rank: []}", "grid"),
        ("grid: {}", "grid"),
    ],
)
def test_a_grid_of_what_cannot_be_is_refused(tmp_path: Path, line: str, said: str) -> None:
    rest = "\nmost: 5\ntolerance: 0.01\nseed: 1\n"
    (tmp_path / "sweep.yaml").write_text(line + rest)
    with pytest.raises(InputError, match=rf"sweep\.yaml(.|\n)*{said}"):
        load(SweepParams, tmp_path)


def test_a_trial_reads_what_the_stage_reads_and_writes_aside(tmp_path: Path) -> None:
    shell, _, line = command(tiny.ROOT, "adapter", tmp_path, {})
    words = shlex.split(line)
    assert shell == "/bin/sh" and words[:4] == ["exec", "${TANDEM_LAUNCHER:-python}", "-m", "tasks.adapter"]
    flags = dict(zip(words[4::2], words[5::2], strict=True))
    aside = {flag for flag, place in flags.items() if Path(place).is_relative_to(tmp_path)}
    assert aside == {"--out", "--metrics", "--plots", "--checkpoints"}
    assert flags["--examples"] == str(tiny.ROOT / "data/examples") and flags["--general"] == str(tiny.ROOT / "infra/general.txt")


def test_another_input_is_read_where_it_is_given_and_stores_stay_where_the_environment_has_them(tmp_path: Path) -> None:
    _, _, line = command(tiny.ROOT, "evaluate", tmp_path / "with space", {"base": tmp_path / "other"})
    words = shlex.split(line)
    flags = dict(zip(words[4::2], words[5::2], strict=True))
    assert flags["--base"] == str(tmp_path / "other") and flags["--out"] == str(tmp_path / "with space/out")
    assert flags["--adapter"] == str(tiny.ROOT / "data/adapter")
    assert (
        '--store "${TANDEM_INDEX_URI:-.tandem/index}"' in line and '--answers "${TANDEM_ANSWERS:-.tandem/answers.sqlite}"' in line
    )
