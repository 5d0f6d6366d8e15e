"""A fresh process that opens a sealed release and asks it the golden questions: `python -m flows.verify RELEASE GOLDEN`.

What it cannot load, a server could not either; it runs before the ledger entry, so a release that does not verify never was live.
"""

import hashlib
import json
import sys
from importlib.util import find_spec
from pathlib import Path

from flows.opening import manifest_text, open_manifest
from flows.settings import Settings, read_settings
from flows.store import open_file
from tasks.errors import IntegrityError, TandemError


def verify(settings: Settings, identity: str, golden: str) -> int:
    """The number of golden questions, each answered as in the evaluation; IntegrityError at the first that was not."""
    assistant = open_manifest(settings, manifest_text(settings, identity))
    if assistant.release_id != identity:
        raise IntegrityError(f"the manifest stored as {identity} is that of {assistant.release_id}")
    asked = json.loads(open_file(settings.store, golden))
    for record in asked:
        answer = assistant.ask(record["question"]).answer
        if answer != record["answer"]:
            raise IntegrityError(
                f"golden question {record['question']!r} was answered {answer!r}, in the evaluation {record['answer']!r}"
            )
    return len(asked)


def installed_digest(module: str) -> str:
    """sha256 of a module's source as installed."""
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        raise IntegrityError(f"module {module} is not installed; run: make setup")
    return hashlib.sha256(Path(spec.origin).read_bytes()).hexdigest()


def main() -> None:
    try:
        count = verify(read_settings(), *sys.argv[1:3])
    except TandemError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
    print(f"verified: {count} golden questions answered as before")


if __name__ == "__main__":
    main()
