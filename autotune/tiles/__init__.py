"""Which tile: spaces of tiles, models of their times, and a search that measures the promising ones only."""
