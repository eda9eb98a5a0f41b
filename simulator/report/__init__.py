"""What a prediction says, as plain data for other programs."""
