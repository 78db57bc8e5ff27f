"""`python -m diffloom`, and so `torchrun -m diffloom train recipe.yaml`."""

import sys

from diffloom.cli import main

sys.exit(main())
