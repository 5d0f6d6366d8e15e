"""Ctrl-C at a terminal goes to every process of the group: the flow's own Prefect server must outlive it by a moment."""

import signal
import sys

import pytest

from flows.apart import start_server

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # of Prefect's server, at its import


class Started:
    masks: list[set[int]] = []

    def start(self, timeout: int) -> None:
        assert timeout >= 60
        self.masks.append(set(signal.pthread_sigmask(signal.SIG_BLOCK, ())))


def test_the_server_is_started_with_ctrl_c_blocked_and_this_process_still_hears_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import prefect.server.api.server
    from prefect.settings import PREFECT_API_URL, temporary_settings

    monkeypatch.setattr(prefect.server.api.server, "SubprocessASGIServer", Started)
    Started.masks.clear()
    with temporary_settings(restore_defaults={PREFECT_API_URL}):  # another test's server may be named
        start_server()
    assert Started.masks == [{signal.SIGINT}]
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_where_a_server_is_named_none_is_started_nor_its_code_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    monkeypatch.setitem(sys.modules, "prefect.server.api.server", None)  # whoever imports it fails
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:4200/api"}):
        start_server()
