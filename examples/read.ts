// Copies the stream Issue into a file. Cursor and issues are replaced in one step, so wherever this is killed, it goes on with
// no change lost and none counted twice.
import { existsSync, readFileSync, renameSync, writeFileSync } from "node:fs";

const url = process.env.SYNCLINE_URL ?? "http://127.0.0.1:8080";
const headers = { authorization: `Bearer ${readFileSync("syncline.key", "utf8").trim()}` };
const copy = existsSync("issues.json") ? JSON.parse(readFileSync("issues.json", "utf8")) : { cursor: "earliest", issues: {} };

while (true) {
  const query = new URLSearchParams({ stream: "Issue", cursor: copy.cursor, wait: "20s" });
  const answer = await fetch(`${url}/v1/changes?${query}`, { headers });
  if (!answer.ok) throw new Error(await answer.text());
  const page = await answer.json();
  for (const { key, after } of page.changes) {  // `after` is null for a deleted record
    copy.issues[key] = { record: after, changes: (copy.issues[key]?.changes ?? 0) + 1 };
  }
  copy.cursor = page.cursor;
  writeFileSync("issues.json.new", JSON.stringify(copy));
  renameSync("issues.json.new", "issues.json");
}
