"""Errors of the executor that a user can cause."""


class ExecutorError(ValueError):
    """Something that a run was asked for is wrong or cannot be done; the message says what to do."""


class DataError(ExecutorError):
    """The training data cannot be used."""


class RecordError(ExecutorError):
    """A file is no record of a run, or not one that this version reads."""


class CheckpointError(ExecutorError):
    """A checkpoint cannot be written, or not be read into this run."""
