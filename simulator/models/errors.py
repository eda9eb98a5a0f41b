"""Every error that a user of models can cause."""


class ModelError(ValueError):
    """A model is wrong: the message names the file or model, and each broken rule with its values."""


class UnknownModel(ModelError):  # noqa: N818 - named for what is unknown
    """No model of that name is in the zoo; the message names the nearest ones."""


class ConfigError(ModelError):
    """A Hugging Face `config.json` cannot be read as a model; the message names every key concerned."""
