"""The exceptions of Tandem, drawn once.

TandemError          anything that Tandem says itself: the message names what, where and how to mend it
  InputError         bad input or usage (exit code 2)
  RefusedError       the gate, or a check before promotion, said no (exit code 3)
  ConflictError      somebody else won: another promoter, another run (exit code 1)
  IntegrityError     something that was sealed is missing, torn or foreign (exit code 1)
  PreemptedError     a stage was asked to stop and kept its progress (exit code 75)
"""


class TandemError(Exception):
    """Base of every error whose message is meant for a person; `exit_code` is what the command line returns."""

    exit_code = 1


class InputError(TandemError):
    """Bad input or usage: nothing was written."""

    exit_code = 2


class RefusedError(TandemError):
    """A candidate was judged and not accepted."""

    exit_code = 3


class ConflictError(TandemError):
    """Another process got there first."""


class IntegrityError(TandemError):
    """Sealed content does not match its digest, or is gone."""


class PreemptedError(TandemError):
    """A stage was asked to stop (SIGTERM) and did, with its progress kept: the same command goes on from there."""

    exit_code = 75  # EX_TEMPFAIL of sysexits.h: nothing is wrong, try again
