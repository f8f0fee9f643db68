# Copies the stream Issue into SQLite. The cursor is stored in one transaction with the changes before it, so wherever this is
# killed, it goes on with no change lost and none counted twice.
import json, os, sqlite3
from urllib.parse import urlencode
from urllib.request import Request, urlopen

url = os.environ.get("SYNCLINE_URL", "http://127.0.0.1:8080")
key = open("syncline.key").read().strip()
db = sqlite3.connect("issues.db")
db.execute("CREATE TABLE IF NOT EXISTS issue (id TEXT PRIMARY KEY, record TEXT, changes INTEGER)")
db.execute("CREATE TABLE IF NOT EXISTS place (one INTEGER PRIMARY KEY, cursor TEXT)")
cursor = (db.execute("SELECT cursor FROM place").fetchone() or ["earliest"])[0]

while True:
    query = urlencode({"stream": "Issue", "cursor": cursor, "wait": "20s"})
    page = json.load(urlopen(Request(f"{url}/v1/changes?{query}", headers={"Authorization": f"Bearer {key}"})))
    with db:
        for change in page["changes"]:  # `after` is null for a deleted record
            db.execute("INSERT INTO issue VALUES (?, ?, 1) "
                       "ON CONFLICT (id) DO UPDATE SET record = excluded.record, changes = changes + 1",
                       (change["key"], json.dumps(change["after"])))
        db.execute("INSERT OR REPLACE INTO place VALUES (1, ?)", (page["cursor"],))
    cursor = page["cursor"]
