"""towtank: predict, search and calibrate large-scale LLM training before spending a node-hour."""

__version__ = "0.1.0"
