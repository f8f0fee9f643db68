"""The peer: records kept in a PostgreSQL table as hosted sync products keep them.

A batch of 1,000 is one transaction. First only ids and hashes go to the server, which says which of them it has as they
are; the others follow with their content, in one INSERT … ON CONFLICT DO UPDATE. A reader follows the table by (updated_at,
id) and is woken by NOTIFY. What a re-poll has seen goes to a narrow table, and what is not in it at the end is deleted.
Simpler than what Syncline does: bytes are compared, not content, an older version that comes late is applied, and what is
read is the latest state of each record, not its history.
"""

import atexit
import hashlib
import os
import pathlib
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import psycopg

import works

SETTINGS = {
    "listen_addresses": "",
    "shared_buffers": "2GB",
    "max_wal_size": "8GB",
    "checkpoint_timeout": "15min",
    "effective_cache_size": "8GB",
    "work_mem": "256MB",
    "maintenance_work_mem": "512MB",
    "jit": "off",
    "autovacuum": "on",
}

SCHEMA = """
CREATE TABLE records (
    id bigint GENERATED ALWAYS AS IDENTITY,
    connection smallint NOT NULL,
    external_id text NOT NULL,
    json json NOT NULL,
    hash bytea NOT NULL,
    modified_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    deleted_at timestamptz,
    PRIMARY KEY (connection, external_id)
);
CREATE INDEX cursor ON records (updated_at, id);
CREATE TABLE seen (id bigint NOT NULL);
"""

SAME = """
WITH same AS (
    SELECT r.id, r.external_id
    FROM unnest(%b::text[], %b::bytea[]) AS i(external_id, hash)
    CROSS JOIN LATERAL (
        SELECT id, external_id, hash, deleted_at FROM records
        WHERE connection = %b::smallint AND external_id = i.external_id OFFSET 0
    ) r
    WHERE r.hash = i.hash AND r.deleted_at IS NULL
), marked AS (INSERT INTO seen SELECT id FROM same WHERE %b::boolean)
SELECT external_id FROM same
"""

SAVE = """
WITH saved AS (
    INSERT INTO records AS r (connection, external_id, modified_at, json, hash)
    SELECT %b::smallint, * FROM unnest(%b::text[], %b::timestamptz[], %b::json[], %b::bytea[])
    ON CONFLICT (connection, external_id) DO UPDATE SET
        json = excluded.json, hash = excluded.hash, modified_at = excluded.modified_at,
        updated_at = excluded.updated_at, deleted_at = NULL
    RETURNING id, xmax = 0 AS added
), marked AS (INSERT INTO seen SELECT id FROM saved WHERE %b::boolean)
SELECT count(*) FILTER (WHERE added), count(*) FILTER (WHERE NOT added) FROM saved
"""

ONE = """
WITH saved AS (
    INSERT INTO records AS r (connection, external_id, modified_at, json, hash)
    VALUES (%b::smallint, %b::text, %b::timestamptz, %b::json, %b::bytea)
    ON CONFLICT (connection, external_id) DO UPDATE SET
        json = excluded.json, hash = excluded.hash, modified_at = excluded.modified_at,
        updated_at = excluded.updated_at, deleted_at = NULL
    WHERE r.hash <> excluded.hash OR r.deleted_at IS NOT NULL
    RETURNING id
)
SELECT pg_notify('news', '') FROM saved
"""

SWEEP = """
UPDATE records r SET deleted_at = clock_timestamp(), updated_at = clock_timestamp()
WHERE r.deleted_at IS NULL AND NOT EXISTS (SELECT FROM seen s WHERE s.id = r.id)
"""

NEWS = "SELECT updated_at, id, external_id FROM records WHERE (updated_at, id) > (%s, %s) ORDER BY updated_at, id LIMIT 1000"


def reachable(path):
    """Whether any user may go there."""
    parents = [path, *pathlib.Path(path).resolve().parents]
    return all(os.stat(parent).st_mode & stat.S_IXOTH for parent in parents)


def start():
    """A server of our own, a child of this process; it refuses to run as root."""
    folder = tempfile.mkdtemp(prefix="pg-", dir="/tmp")
    data = os.path.join(os.environ["DATA"], "cluster")
    who = {}
    if os.getuid() == 0:
        user = pwd.getpwnam("postgres")
        if not reachable(os.environ["DATA"]):
            print("the run's folder is closed to other users: the cluster is beside its socket", file=sys.stderr)
            data = os.path.join(folder, "cluster")
        who = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": [], "cwd": "/"}
        os.makedirs(data)
        os.chown(data, user.pw_uid, user.pw_gid)
        os.chown(folder, user.pw_uid, user.pw_gid)
    subprocess.run(
        ["initdb", "-D", data, "-A", "trust", "-U", "peer", "-E", "UTF8", "--locale=C"],
        check=True, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL, **who)
    options = [f"-c{name}={value}" for name, value in SETTINGS.items()]
    server = subprocess.Popen(
        ["postgres", "-D", data, f"-cunix_socket_directories={folder}", *options],
        stdin=subprocess.DEVNULL, stdout=sys.stderr, stderr=sys.stderr, **who)

    def stop():
        server.send_signal(signal.SIGQUIT)
        server.wait()
        shutil.rmtree(folder, ignore_errors=True)

    atexit.register(stop)
    return folder


def connect(folder):
    for _ in range(200):
        try:
            return psycopg.connect(f"host={folder} user=peer dbname=postgres", autocommit=True, prepare_threshold=1)
        except psycopg.OperationalError:
            time.sleep(0.05)
    raise SystemExit("the server does not answer")


class Store:
    """The table and its writers."""

    def __init__(self):
        self.folder = start()
        with connect(self.folder) as db:
            db.execute(SCHEMA)

    def writer(self):
        """A connection whose plans stay right while the table grows from nothing."""
        db = connect(self.folder)
        db.execute("SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off")
        return db

    def save(self, db, connection, batch, marks):
        """One batch: how many were added and updated."""
        hashes = {row[0].decode(): hashlib.md5(row[2]).digest() for row in batch}
        with db.transaction():
            same = db.execute(SAME, (list(hashes), list(hashes.values()), connection, marks), binary=True).fetchall()
            same = {row[0] for row in same}
            fresh = [(key, row) for key, row in zip(hashes, batch) if key not in same]
            if not fresh:
                return 0, 0
            keys = [key for key, _ in fresh]
            columns = (keys, [row[1].decode() for _, row in fresh], [row[2].decode() for _, row in fresh])
            return db.execute(SAVE, (connection, *columns, [hashes[key] for key in keys], marks)).fetchone()

    def file(self, work, connection, path):
        added = updated = 0
        with self.writer() as db:
            for batch in works.batches(path):
                more = self.save(db, connection, batch, work == "w2")
                added, updated = added + more[0], updated + more[1]
        return added, updated

    def poll(self, work):
        """All connections, as many at once as there are threads; then, in a re-poll, what is missing."""
        with ThreadPoolExecutor(int(os.environ["THREADS"])) as pool:
            counts = list(pool.map(lambda file: self.file(work, *file), works.files(work)))
        deleted = 0
        if work == "w2":
            with connect(self.folder) as db:
                db.execute("ANALYZE seen")
                deleted = db.execute(SWEEP).rowcount
                db.execute("TRUNCATE seen")
        self.counts = {"added": sum(c[0] for c in counts), "updated": sum(c[1] for c in counts), "deleted": deleted}
        return {}

    def pace(self, rate):
        """Single updates at a set pace, and a reader."""
        rows = [row for batch in works.batches(os.path.join(os.environ["FILES"], "w3")) for row in batch]
        with connect(self.folder) as db:
            place = db.execute("SELECT max(updated_at), max(id) FROM records").fetchone()
        db = self.writer()
        due, seen, ready = {}, {}, threading.Event()
        reader = threading.Thread(target=self.read, args=(place, len(rows), seen, ready))
        reader.start()
        ready.wait()
        begin = time.monotonic()
        for n, row in enumerate(rows):
            key = row[0].decode()
            due[key] = begin + n / int(rate)
            time.sleep(max(0.0, due[key] - time.monotonic()))
            digest = hashlib.md5(row[2]).digest()
            db.execute(ONE, (int(key) % works.CONNECTIONS, key, row[1].decode(), row[2].decode(), digest))
        reader.join()
        delays = sorted((seen[key] - due[key]) * 1e3 for key in due)
        at = lambda share: delays[min(len(delays) * share // 1000, len(delays) - 1)]
        return {"changes": len(seen), "p50": at(500), "p99": at(990), "p99.9": at(999)}

    def read(self, place, wanted, seen, ready):
        """Follows the table by its cursor, woken when there is something."""
        with connect(self.folder) as db:
            db.execute("LISTEN news")
            db.execute("SET enable_seqscan = off")
            ready.set()
            while len(seen) < wanted:
                for _ in db.notifies(timeout=30, stop_after=1):
                    pass
                rows = db.execute(NEWS, place).fetchall()
                now = time.monotonic()
                for updated_at, number, key in rows:
                    place = (updated_at, number)
                    seen.setdefault(key, now)


store = Store()
works.serve({
    "w1": lambda: store.poll("w1"),
    "w2": lambda: store.poll("w2"),
    "w3": store.pace,
    "count": lambda work: store.counts,
})
