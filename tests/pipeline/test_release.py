import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny
from looking import World, entries, executed_stages, flow_runs, settings, stored_vectors

from flows import registry
from flows.cli import run
from flows.lock import exclusive
from flows.tracking import client
from tasks.params import ARMS
from tasks.records import folder_digest, read_json, read_jsonl

Copy = Callable[[Path], Path]


def test_release_after_dvc_repro_executes_no_stage_and_promotes(world: World, copy: Copy) -> None:
    copy(world.first)
    assert world.first_outcome["outcome"] == "promoted"
    assert (world.first_outcome["number"], world.first_outcome["arm"]) == (1, "rag+lora")
    assert executed_stages() == {"documents": 1, "questions": 1}  # by the ingest
    assert [(entry.action, entry.number, entry.version) for entry in entries()] == [("promote", 1, 1)]
    assert registry.champion_version(settings()) == 1
    assert flow_runs("release")[0].info.status == "FINISHED"


def test_every_arm_is_told_by_its_metrics_rules_and_cost(world: World, copy: Copy, capsys: pytest.CaptureFixture[str]) -> None:
    clone = copy(world.first)
    arms = read_json(clone / "data/evaluation/report.json")["arms"]
    assert set(arms) == set(ARMS)
    for values in arms.values():
        means = {name: metric["mean"] for name, metric in values["metrics"].items()}
        assert (means["rule ends"], means["rule json"], means["rule few"], means["no_personal_data"]) == (1.0, 0.0, 1.0, 1.0)
        assert 0 <= means["semantic_similarity"] <= 1 and 0 <= means["rouge_l"] <= 1
        assert values["timed"] >= 2 and values["latency_p95"] >= values["latency_p50"] > 0
        assert values["thousand"]["prompt_tokens"] == pytest.approx(1000 * values["prompt_tokens"])
        assert values["thousand"]["estimated_money"] is None
    assert run(["report"]) == 0
    table = capsys.readouterr().out
    assert "rule few" in table and "1,000 answers: seconds an answer, median" in table
    flat = read_json(clone / "data/metrics/evaluate.json")["arms"]["rag"]
    assert "rule few" in flat and not {"latency_p50", "peak_memory_mb", "thousand"} & set(
        flat
    )  # DVC compares what is equal again


def test_a_second_release_does_nothing_and_dvc_repro_after_it_executes_nothing(
    world: World, copy: Copy, capsys: pytest.CaptureFixture[str]
) -> None:
    clone = copy(world.first)
    ran, vectors, lock = executed_stages(), stored_vectors(clone), (clone / "dvc.lock").read_bytes()
    assert run(["release", "--json"]) == 0
    outcome = json.loads(capsys.readouterr().out)
    assert (outcome["outcome"], outcome["number"]) == ("unchanged", 1)
    assert executed_stages() == ran
    assert len(entries()) == 1
    assert stored_vectors(clone) == vectors
    done = tiny.dvc(clone, "repro")
    assert "Data and pipelines are up to date." in done.stdout, done.stdout + done.stderr
    assert (clone / "dvc.lock").read_bytes() == lock
    assert run(["release", "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again == outcome | {"reasons": ["nothing new: release 1 is live and up to date"]}
    assert len(flow_runs("release")) == 2, "what ends at once leaves no run in MLflow"


def test_the_same_corpus_ingested_again_changes_nothing(world: World, copy: Copy) -> None:
    clone = copy(world.first)
    ran, lock = executed_stages(), (clone / "dvc.lock").read_bytes()
    corpus = world.folder / "day-1"
    assert run(["ingest", "--documents", str(corpus / "documents"), "--questions", str(corpus / "questions.jsonl")]) == 0
    assert executed_stages() == ran
    assert (clone / "dvc.lock").read_bytes() == lock


def test_an_ingest_that_is_refused_leaves_the_corpus_as_it_was(world: World, copy: Copy, tmp_path: Path) -> None:
    clone = copy(world.first)
    before = folder_digest(clone / "data/raw")
    (tmp_path / "bad.jsonl").write_text('{"question": "Why?"}\n')
    assert run(["ingest", "--documents", str(world.folder / "day-2/documents"), "--questions", str(tmp_path / "bad.jsonl")]) == 2
    assert folder_digest(clone / "data/raw") == before
    assert [path.name for path in (clone / "data").iterdir() if path.name.startswith(".raw")] == []


def test_an_index_whose_table_is_gone_is_rebuilt_without_embedding_anything(world: World, copy: Copy) -> None:
    clone = copy(world.first)
    shutil.rmtree(clone / ".tandem/index")
    assert run(["release"]) == 0
    assert executed_stages()["index"] == 1
    assert read_json(clone / "data/metrics/index.json")["embedded"] == 0
    assert run(["ask", "What is the humidity of the proofer?"]) == 0


def test_a_damaged_adapter_is_refused_and_the_refusal_recorded_once(
    world: World, copy: Copy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clone = copy(world.first)
    adapter = damaged(clone / "data/adapter", tmp_path / "damaged")
    for _ in range(2):
        assert run(["release", "--json", "--adapter", str(adapter)]) == 3
        outcome = json.loads(capsys.readouterr().out)
        assert (outcome["outcome"], outcome["number"]) == ("refused", 1)
        assert outcome["reasons"]
    assert [entry.action for entry in entries()] == ["promote", "refuse"]
    assert entries()[1].release == entries()[0].release
    assert entries()[1].candidate != entries()[0].release
    assert registry.champion_version(settings()) == 1


def damaged(adapter: Path, target: Path) -> Path:
    """The same shapes, filled with noise."""
    import numpy as np
    from safetensors.numpy import load_file, save_file

    shutil.copytree(adapter, target)
    noise = np.random.default_rng(1)
    weights = load_file(target / "adapter_model.safetensors")
    spoilt = {name: noise.normal(size=weight.shape, scale=9).astype(np.float32) for name, weight in weights.items()}
    save_file(spoilt, target / "adapter_model.safetensors", metadata={"format": "pt"})
    return target


def test_an_adapter_that_is_no_adapter_is_bad_input(world: World, copy: Copy, tmp_path: Path) -> None:
    copy(world.first)
    assert run(["release", "--adapter", str(tmp_path / "nothing")]) == 2
    assert len(entries()) == 1


def test_while_one_flow_runs_another_is_bad_usage_and_says_who_runs(
    world: World, copy: Copy, capsys: pytest.CaptureFixture[str]
) -> None:
    copy(world.first)
    with exclusive(settings().home / "lock", what="release"):
        assert run(["release", "--json"]) == 2
    assert "another release is running here (pid" in json.loads(capsys.readouterr().out)["error"]


def test_training_and_serving_build_the_same_prompt(world: World, copy: Copy) -> None:
    """The served arm has no shots here, as the examples have none: what the adapter learnt from is what it is asked."""
    from flows.opening import open_release

    clone = copy(world.first)
    assistant, number = open_release(settings())
    asked = {record["id"]: record["question"] for record in read_jsonl(clone / "data/questions/train.jsonl")}
    examples = [record for record in read_jsonl(clone / "data/examples/train.jsonl") if record["kind"] == "with_right"]
    assert number == 1 and examples
    for example in examples[:3]:
        answer = assistant.ask(asked[example["id"]])
        assert answer.prompt == example["prompt"]
    tests = {record["id"]: record["question"] for record in read_jsonl(clone / "data/questions/test.jsonl")}
    golden = read_json(clone / "data/evaluation/golden.json")["rag+lora"]["answers"]
    assert golden[0]["question"] in tests.values()
    assert [assistant.ask(record["question"]).answer for record in golden] == [record["answer"] for record in golden]


def test_mlflows_users_find_the_release_by_its_alias(world: World, copy: Copy) -> None:
    import mlflow

    copy(world.first)
    mlflow.set_tracking_uri(settings().tracking_uri)
    model = mlflow.pyfunc.load_model("models:/assistant@champion")
    answers = model.predict(["What is the humidity of the proofer?", "When does the van leave?"])
    assert [answer["release"] for answer in answers] == [world.first_outcome["release"]] * 2
    assert [answer["sources"][0]["page"] for answer in answers] == ["oven/proofer", "delivery/van"]
    assert "mlflow" in sys.modules


def test_an_answer_is_explained_at_once_and_later(world: World, copy: Copy, capsys: pytest.CaptureFixture[str]) -> None:
    clone = copy(world.first)
    question = "What is the humidity of the proofer?"
    assert run(["ask", "--json", "--explain", question]) == 0
    answer = json.loads(capsys.readouterr().out)
    told = answer["why"]
    assert [passage["passage"] for passage in told["passages"]] == [source["passage"] for source in answer["sources"]]
    assert told["passages"][0]["vector"]["place"] >= 1
    assert told["passages"][0]["score"] == answer["sources"][0]["score"]
    assert question in told["prompt"] and " ".join(told["passages"][0]["passage"].split()) in told["prompt"]
    assert told["decoding"]["do_sample"] is False
    assert run(["why", answer["id"], "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == told
    assert run(["ask", "--json", "--arm", "prompt", question]) == 0
    assert json.loads(capsys.readouterr().out).keys().isdisjoint({"why"})
    assert run(["why", "nobody"]) == 2
    assert (clone / ".tandem/asked.sqlite").stat().st_mode & 0o777 == 0o600


def test_the_page_of_a_judged_run_is_its_artifact(world: World, copy: Copy) -> None:
    copy(world.first)
    run_id = flow_runs("release")[0].info.run_id
    path = client(settings().tracking_uri).download_artifacts(run_id, "report.html")
    text = Path(path).read_text(encoding="utf-8")
    assert "Release 1 is accepted by the gate: questions are answered by the trained model" in " ".join(text.split())
    card = Path(client(settings().tracking_uri).download_artifacts(run_id, "README.md")).read_text(encoding="utf-8")
    assert card.startswith("---\n") and "# Release 1 of `tandem`" in card and "| params: rank | 2 |" in card
    described = client(settings().tracking_uri).get_model_version("assistant", "1").description
    assert "Its model card is README.md among the artifacts of its source run" in described
    assert "Training of the adapter" in text and text.count('<tbody class="question"') >= 3
