"""Why an answer is as it is: the passages with what each leg of the search gave them, the prompt to the letter, the decoding."""

from tasks.assistant import Answer, Assistant
from tasks.params import uses_adapter, uses_passages
from tasks.records import Record
from tasks.search import Ranking, checked_question


def explanation(assistant: Assistant, question: str, answer: Answer) -> Record:
    """Of an answer that this assistant has just given. Passages stand in the order of the prompt, numbered as it numbers them."""
    question = checked_question(question)
    generator = assistant.adapted if uses_adapter(answer.arm) else assistant.base
    return {
        "question": question,
        **answer.to_json(),
        "retrieval": dict(assistant.release.retrieval) if uses_passages(answer.arm) else None,
        "passages": given(assistant, question, answer) if answer.passages else [],
        "prompt": generator.render(answer.prompt),
        "decoding": dict(assistant.release.decoding),
    }


def given(assistant: Assistant, question: str, answer: Answer) -> list[Record]:
    """`text` and `vector`: place and score in the ranking of that leg, None where it did not find the passage among its
    candidates. BM25 and minus the cosine distance: comparable within a leg only."""
    text, vector, _ = assistant.index.legs(question, assistant.release.retrieval["candidates"])
    cited = {(source["page"], source["passage"]) for source in answer.sources if source["cited"]}
    return [
        {
            "number": number,
            "page": passage["document"],
            "heading": passage["heading"],
            "passage": passage["text"],
            "score": passage["score"],
            "text": placed(text, passage["id"]),
            "vector": placed(vector, passage["id"]),
            "cited": (passage["document"], passage["text"]) in cited,
        }
        for number, passage in enumerate(answer.passages, start=1)
    ]


def placed(ranking: Ranking, identity: str) -> Record | None:
    return next(
        ({"place": place, "score": round(score, 6)} for place, (key, score) in enumerate(ranking, start=1) if key == identity),
        None,
    )
