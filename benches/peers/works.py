"""What the peers in Python share: orders come by stdin, a line each, and are answered by one line of JSON on stdout.

Records lie in $FILES: `w1-0` to `w1-9` and `w2-0` to `w2-9` for the connections, `w3` for all; a line is `id TAB modified TAB json`.
"""

import json
import os
import sys

CONNECTIONS = 10
BATCH = 1000


def files(work):
    """The connections of a work, each with the path of its records."""
    return [(n, os.path.join(os.environ["FILES"], f"{work}-{n}")) for n in range(CONNECTIONS)]


def batches(path, size=BATCH):
    """Lists of (id, modified, json) as bytes."""
    batch = []
    with open(path, "rb", buffering=1 << 20) as lines:
        for line in lines:
            batch.append(line.rstrip(b"\n").split(b"\t", 2))
            if len(batch) == size:
                yield batch
                batch = []
    if batch:
        yield batch


def serve(works):
    """Does what it is told until stdin ends."""
    for line in sys.stdin:
        order, *rest = line.split()
        print(json.dumps(works[order](*rest)), flush=True)
