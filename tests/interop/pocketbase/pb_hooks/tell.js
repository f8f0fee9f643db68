// Posts one change to Syncline: the body signed with HMAC-SHA256, hex, in a header. Retried a few times, as providers do.

const ATTEMPTS_MAX = 3;

module.exports = function tell(record, action) {
  const body = JSON.stringify({ action, record });
  const request = {
    url: $os.getenv("SYNCLINE_WEBHOOK_URL"),
    method: "POST",
    body,
    headers: {
      "content-type": "application/json",
      "x-pocketbase-signature": $security.hs256(body, $os.getenv("SYNCLINE_WEBHOOK_SECRET")),
    },
    timeout: 10,
  };
  for (let attempt = 1; attempt <= ATTEMPTS_MAX; attempt++) {
    try {
      const answer = $http.send(request);
      if (answer.statusCode < 500) return;
      console.log(`webhook: attempt ${attempt} answered ${answer.statusCode}`);
    } catch (error) {
      console.log(`webhook: attempt ${attempt} failed: ${error}`);
    }
  }
};
