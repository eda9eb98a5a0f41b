import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "properties"))  # for strategies.py
sys.path.append(str(Path(__file__).parents[1] / "judge"))  # for random_tables.py
