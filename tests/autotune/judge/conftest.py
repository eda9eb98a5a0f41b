import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))  # for random_tables.py
