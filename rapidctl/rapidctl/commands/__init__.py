"""The commands of `rapidctl`, one file each: ``add_parser`` declares it, ``run`` does it and returns the exit code."""
