"""The peer: records merged into a DuckDB table by dlt, the quick way: as Arrow tables, the JSON kept as text.

Each work is one load with the merge disposition. Every record gets the load's id, so those of an older load are what a
re-poll has missed; they are deleted at the end. There is no log of changes: what changed is counted by comparing with the
table as it was, outside the clock. Simpler than what Syncline does: nothing is compared while loading, an older version that
comes late is applied, and only a whole load is durable.
"""

import os

import dlt
import duckdb
import pyarrow as pa

import works

FOLDER = os.environ["DATA"]
DATABASE = os.path.join(FOLDER, "records.duckdb")
# dlt's own telemetry and its working folder stay out of the way.
os.environ["RUNTIME__DLTHUB_TELEMETRY"] = "false"
os.environ["RUNTIME__LOG_LEVEL"] = "ERROR"
os.environ["NORMALIZE__PARQUET_NORMALIZER__ADD_DLT_LOAD_ID"] = "true"
PIPELINE = dlt.pipeline(
    "peer", pipelines_dir=os.path.join(FOLDER, "pipelines"), dataset_name="peer",
    destination=dlt.destinations.duckdb(DATABASE))
BATCH = 50_000


def tables(work):
    """All connections, in Arrow tables."""
    for connection, path in works.files(work):
        for batch in works.batches(path, BATCH):
            columns = [pa.array([row[n] for row in batch], pa.binary()).cast(pa.string()) for n in range(3)]
            yield pa.table([pa.array([connection] * len(batch), pa.int32()), *columns],
                           names=["connection", "id", "updated_at", "json"])


def load(work):
    """One load; in a re-poll what it has not met goes."""
    records = dlt.resource(tables(work), name="records", write_disposition={"disposition": "merge"},
                           primary_key=["connection", "id"])
    loaded = PIPELINE.run(records, loader_file_format="parquet")
    if work == "w2":
        with duckdb.connect(DATABASE) as db:
            db.execute("DELETE FROM peer.records WHERE _dlt_load_id <> ?", [loaded.loads_ids[0]])
    return {}


def look(name):
    """The state is kept as a table of its own, to be compared with."""
    with duckdb.connect(DATABASE) as db:
        db.execute(f"CREATE TABLE {name} AS SELECT connection, id, hash(json) AS hash FROM peer.records")
    return {}


def count(before, after):
    """What changed from one state to the other."""
    with duckdb.connect(DATABASE) as db:
        added, updated, deleted = db.execute(f"""
            SELECT count(*) FILTER (WHERE b.id IS NULL), count(*) FILTER (WHERE b.hash <> a.hash),
                   count(*) FILTER (WHERE a.id IS NULL)
            FROM {before} b FULL JOIN {after} a USING (connection, id)""").fetchone()
    return {"added": added, "updated": updated, "deleted": deleted}


def after(work):
    """Counts of a work, asked for when the clock stands still."""
    look(work)
    if work == "w1":
        with duckdb.connect(DATABASE) as db:
            return {"added": db.execute("SELECT count(*) FROM w1").fetchone()[0], "updated": 0, "deleted": 0}
    return count("w1", work)


works.serve({"w1": lambda: load("w1"), "w2": lambda: load("w2"), "count": after})
