//! What does not fit into a message: to the dead letters, or a reference in its place. Pure.

use super::envelope::OutgoingMessage;
use super::json;
use super::outlet::OutputTopic;
use bytes::Bytes;

/// What the broker adds to a message alone in its batch, at most.
const AROUND: usize = 256;

/// Whether the topic takes it.
pub fn fits(message: &OutgoingMessage, target: &OutputTopic) -> bool {
    message.bytes() + AROUND <= target.largest
}

/// What is sent for a message that is too large. `reference` is where the change can be read instead. With `claim_check`
/// it goes into the topic in the message's place; otherwise it goes to the dead letters with the reason.
pub fn instead(
    message: OutgoingMessage,
    target: &OutputTopic,
    dead: &OutputTopic,
    reference: &str,
    claim_check: bool,
) -> OutgoingMessage {
    let bytes = message.bytes();
    if claim_check {
        return claim(message, reference, bytes);
    }
    let mut value = b"{\"error\":\"message_too_large\",\"topic\":".to_vec();
    json::quote(&mut value, &target.name);
    value.extend_from_slice(format!(",\"bytes\":{bytes},\"largest\":{},\"reference\":", target.largest).as_bytes());
    json::quote(&mut value, reference);
    value.push(b'}');
    let mut headers = message.headers;
    let why =
        format!("message_too_large: {bytes} bytes do not fit into {}, which takes {}", target.name, target.largest);
    headers.push(("syncline-error", Bytes::from(why)));
    headers.push(("syncline-topic", Bytes::copy_from_slice(target.name.as_bytes())));
    OutgoingMessage { topic: dead.name.clone(), partition: None, value: Some(value), headers, ..message }
}

fn claim(message: OutgoingMessage, reference: &str, bytes: usize) -> OutgoingMessage {
    let mut value = b"{\"claim_check\":{\"reference\":".to_vec();
    json::quote(&mut value, reference);
    value.extend_from_slice(format!(",\"bytes\":{bytes}}}}}").as_bytes());
    let mut headers = message.headers;
    headers.push(("syncline-claim-check", Bytes::copy_from_slice(reference.as_bytes())));
    OutgoingMessage { value: Some(value), headers, ..message }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_large_is_told() {
        let target = |name: &str| OutputTopic { name: name.into(), partitions: 3, largest: 1_000, compacted: false };
        let (topic, dead) = (target("t"), target("dlq"));
        let message = OutgoingMessage {
            topic: topic.name.clone(),
            partition: Some(2),
            key: Bytes::from_static(b"k"),
            value: Some(vec![b'x'; 2_000]),
            headers: vec![("h", Bytes::from_static(b"v"))],
            timestamp: 5,
        };
        assert!(!fits(&message, &topic) && fits(&OutgoingMessage { value: None, ..message.clone() }, &topic));
        let letter = instead(message.clone(), &topic, &dead, "/v1/changes?cursor=AQ&limit=1", false);
        let value: serde_json::Value = serde_json::from_slice(letter.value.as_deref().expect("a value")).expect("JSON");
        assert_eq!((&*letter.topic, letter.partition, &letter.key[..]), ("dlq", None, &b"k"[..]));
        assert_eq!(value["bytes"], 2_007);
        assert!(letter.headers.iter().any(|(name, why)| *name == "syncline-error" && why.starts_with(b"message_too")));
        let claim = instead(message, &topic, &dead, "/v1/changes?cursor=AQ&limit=1", true);
        assert_eq!((&*claim.topic, claim.partition), ("t", Some(2)));
        let text = String::from_utf8(claim.value.expect("a value")).expect("text");
        assert_eq!(text, r#"{"claim_check":{"reference":"/v1/changes?cursor=AQ&limit=1","bytes":2007}}"#);
    }
}
