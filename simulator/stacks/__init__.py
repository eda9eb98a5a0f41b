"""Stacks: the software that a job runs on, as data. One YAML file a stack, one loader, one rule file."""
