"""S3 on this machine, for tests: moto's server, with a note of every write and of the condition that it carried."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from running import free_port, wait_for

BUCKET = "tandem-test"
COMMIT_SECONDS = 0.2  # that a conditional write takes at least: two writers at once then meet
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_REGION": "us-east-1",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_ALLOW_HTTP": "true",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@dataclass(frozen=True)
class Buckets:
    """A server with one bucket; `environment` is all that a process needs to reach it."""

    environment: dict[str, str]
    notes: Path

    def client(self) -> Any:
        import boto3

        return boto3.client("s3", endpoint_url=self.environment["AWS_ENDPOINT_URL"], region_name="us-east-1",
                            aws_access_key_id="test", aws_secret_access_key="test")  # fmt: skip

    def keys(self, prefix: str) -> list[str]:
        pages = self.client().get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
        return [each["Key"] for page in pages for each in page.get("Contents", [])]

    def writes(self) -> list[tuple[str, str, str]]:
        """(path, If-None-Match, status) of every PUT."""
        return [tuple(json.loads(line)) for line in self.notes.read_text().splitlines()]


@contextmanager
def serving(folder: Path) -> Iterator[Buckets]:
    folder.mkdir(parents=True, exist_ok=True)
    port, notes = free_port(), folder / "writes"
    notes.touch()
    command = [sys.executable, __file__, port, str(notes)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")} | CREDENTIALS
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    buckets = Buckets(CREDENTIALS | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}, notes)
    try:
        wait_for(lambda: "Running on" in (folder / "server.log").read_text(), "moto", (folder / "server.log").read_text)
        buckets.client().create_bucket(Bucket=BUCKET)
        yield buckets
    finally:
        process.kill()
        process.wait()


def serve(port: str, notes: str) -> None:
    """One request at a time: moto looks whether the object is there and writes it then, which S3 does in one step."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import run_simple

    moto, one_at_a_time = DomainDispatcherApplication(create_backend_app), threading.Lock()

    def application(environ: dict[str, Any], start: Any) -> Any:
        condition = environ.get("HTTP_IF_NONE_MATCH", "")
        if condition:
            time.sleep(COMMIT_SECONDS)

        def noted(status: str, headers: Any, *more: Any) -> Any:
            if environ["REQUEST_METHOD"] == "PUT":
                with Path(notes).open("a") as file:
                    file.write(json.dumps([environ["PATH_INFO"], condition, status[:3]]) + "\n")
            return start(status, headers, *more)

        with one_at_a_time:
            return list(moto(environ, noted))

    run_simple("127.0.0.1", int(port), application, threaded=True)


if __name__ == "__main__":
    serve(*sys.argv[1:])
