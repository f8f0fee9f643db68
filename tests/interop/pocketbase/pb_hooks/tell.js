// Posts one change to Syncline: the body signed with HMAC-SHA256, hex, in a header; repeated a few times, as providers do.
// The file SYNCLINE_HOOK_FILE holds the URL; as long as it is not there, nobody wants to be told.

const ATTEMPTS_MAX = 3;
// Records so named stand for webhooks that get lost: only polling can find out about them.
const LOST = "lost ";

module.exports = function tell(record, action) {
  if (record.getString("title").startsWith(LOST)) return;
  let url;
  try {
    url = toString($os.readFile($os.getenv("SYNCLINE_HOOK_FILE"))).trim();
  } catch {
    return;
  }
  const body = JSON.stringify({ action, record });
  const request = {
    url,
    method: "POST",
    body,
    headers: {
      "content-type": "application/json",
      "x-pocketbase-signature": $security.hs256(body, $os.getenv("SYNCLINE_HOOK_SECRET")),
    },
    timeout: 10,
  };
  for (let attempt = 1; attempt <= ATTEMPTS_MAX; attempt++) {
    try {
      const answer = $http.send(request);
      if (answer.statusCode < 500) {
        if (answer.statusCode !== 200) console.log(`webhook refused: ${answer.statusCode}`);
        return;
      }
      console.log(`webhook: attempt ${attempt} answered ${answer.statusCode}`);
    } catch (error) {
      console.log(`webhook: attempt ${attempt} failed: ${error}`);
    }
  }
};
