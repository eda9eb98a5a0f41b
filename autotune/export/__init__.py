"""Plans in the words of the software that runs them, and back."""
