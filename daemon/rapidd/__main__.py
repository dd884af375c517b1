"""``python -m rapidd``."""

import sys

from rapidd.cli import main

sys.exit(main())
