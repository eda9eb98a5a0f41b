import sys
from pathlib import Path

# helper modules of the simulator's tests live beside those of lowering
sys.path.append(str(Path(__file__).parents[1] / "lowering"))
