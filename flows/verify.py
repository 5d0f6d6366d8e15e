"""A fresh process that opens a sealed release and asks it the golden questions: `python -m flows.verify RELEASE GOLDEN`.

What it cannot load, a server could not either; it runs before the ledger entry, so a release that does not verify never was live.
"""

import json
import sys

from flows.evidence import open_evidence
from flows.opening import manifest_text, open_manifest
from flows.settings import Settings, read_settings
from tasks.assistant import Assistant
from tasks.errors import IntegrityError, TandemError
from tasks.generation import environment
from tasks.golden import check_golden


def verify(settings: Settings, identity: str, golden: str) -> str:
    """How the golden questions were answered, in words; IntegrityError where it was not as in the evaluation."""
    assistant = open_manifest(settings, manifest_text(settings, identity))
    if assistant.release_id != identity:
        raise IntegrityError(f"the manifest stored as {identity} is that of {assistant.release_id}")
    return as_evaluated(settings, assistant, golden)


def as_evaluated(settings: Settings, assistant: Assistant, golden: str) -> str:
    """Ask a release that is open its golden questions, of which `golden` is the digest."""
    sealed = json.loads(open_evidence(settings.store, golden))
    given = [assistant.ask(record["question"]).answer for record in sealed["answers"]]
    return check_golden(sealed, given, environment())


def main() -> None:
    try:
        said = verify(read_settings(), *sys.argv[1:3])
    except TandemError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
    print(f"verified: {said}")


if __name__ == "__main__":
    main()
