import sys
from pathlib import Path

# the stand-in of the search must be a module that spawned workers find
sys.path.append(str(Path(__file__).parent))
