"""What the commands in tools/ share, one package a concern.

The one place of tools/ that extends the import path: by the code of the steps, which travels with the model repository.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MODEL_REPOSITORY = ROOT / "model_repository"
STEPS = MODEL_REPOSITORY / "nudenet" / "1"
if str(STEPS) not in sys.path:
    sys.path.append(str(STEPS))
