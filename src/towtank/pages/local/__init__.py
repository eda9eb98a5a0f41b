"""The local page: `towtank predict`, `tune` and `report` in a browser on the same computer."""
