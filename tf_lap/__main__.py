"""`python -m tf_lap`: the `tf-lap` command."""

import sys

from tf_lap.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
