"""`python -m tests.parity`."""

import sys

from .report import main

sys.exit(main())
