"""``python -m rapidctl``."""

import sys

from rapidctl.cli import main

sys.exit(main())
