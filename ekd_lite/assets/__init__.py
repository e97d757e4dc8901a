"""Files that come with the package.

`DEMO_TEACHER` is the teacher of the default experiment, trained on procedural faces by

    ekd-lite train --recipe demo-teacher --device cpu --out runs/demo-teacher
    python scripts/ship_teacher.py runs/demo-teacher

and kept in half precision: its TPR on unseen identities is that of the original to a hundredth of a
point. It knows its people by name, the 1,000 that `SyntheticFaces(1000, 24)` draws, so that methods
on its prototypes refuse others. It holds no person's data.
"""

from pathlib import Path

DEMO_TEACHER = Path(__file__).parent / "demo_teacher.safetensors"
