"""Load a tool's libraries once, and fork a rank for every line that is read.

Imports take most of the time of a small run, and are the same for every start. Reads {"command", "environment", "log"}
and answers {"pid"}; reads {"poll": pid} and answers {"status"}, null while the process runs and negative for a signal.
"""

import importlib
import json
import os
import runpy
import sys
from pathlib import Path

for name in sys.argv[1:]:
    importlib.import_module(name)
for line in sys.stdin:
    job = json.loads(line)
    if "poll" in job:
        pid, status = os.waitpid(job["poll"], os.WNOHANG)
        print(json.dumps({"status": os.waitstatus_to_exitcode(status) if pid else None}), flush=True)
        continue
    child = os.fork()
    if not child:
        break
    print(json.dumps({"pid": child}), flush=True)
else:
    sys.exit()

os.setsid()
log = os.open(job["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
for stream, target in ((0, os.open(os.devnull, os.O_RDONLY)), (1, log), (2, log)):
    os.dup2(target, stream)
os.environ.update(job["environment"])
if "lightning" in sys.modules:  # it reads the rank when it is imported
    from lightning.pytorch.utilities.rank_zero import rank_zero_only

    rank_zero_only.rank = int(os.environ.get("RANK", 0))
sys.argv = job["command"]
sys.path[0] = str(Path(sys.argv[0]).parent)
runpy.run_path(sys.argv[0], run_name="__main__")
