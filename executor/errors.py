"""Errors of the executor that a user can cause."""


class ExecutorError(ValueError):
    """Something that a run was asked for is wrong or cannot be done; the message says what to do."""


class DataError(ExecutorError):
    """The training data cannot be used."""


class RecordError(ExecutorError):
    """A file is no record of a run, or not one that this version reads."""


class LaunchError(ExecutorError):
    """The processes of a run cannot be started as asked."""


class RunError(RuntimeError):
    """A run that began and could not go on. `code` is what the command ends with."""

    code = 1


class NonFiniteLossError(RunError):
    """The loss of a step is no number any more."""

    code = 3


class LostRankError(RunError):
    """A process of the run has ended or does not answer."""

    code = 4


class CheckpointError(ExecutorError):
    """A checkpoint cannot be written, or not be read into this run."""
