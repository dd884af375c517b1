"""Prints how the product refuses a machine that has ROCm's libraries and no GPU."""

import json
import os

from rapidd.errors import DeviceError
from rapidd.partition.hip import describe
from rapidd.partition.hip_runtime import HipRuntime

if __name__ == "__main__":
    try:
        describe(HipRuntime.load(), 0)
        found = {}
    except DeviceError as error:
        found = {"type": type(error).__name__, "message": str(error), "hint": error.hint}
    print(json.dumps(found), flush=True)
    os._exit(0)
