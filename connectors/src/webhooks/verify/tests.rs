//! The verifier against published vectors, and against everything that must be refused.

use super::*;
use http::{HeaderName, HeaderValue};
use proptest::prelude::*;

fn hmac(header: &str, algorithm: HashAlgorithm, format: SignatureFormat, encoding: SignatureEncoding) -> HmacScheme {
    let (content, key) = (vec![SignedPart::Body], KeyForm::Text);
    HmacScheme { algorithm, header: header.into(), format, encoding, max: 8, timestamp: None, content, key }
}

fn stamp(from: StampPlace, unit: StampUnit) -> Option<StampRule> {
    let span = Duration::from_secs(300);
    Some(StampRule { from, unit, past: span, future: span })
}

fn lit(text: &str) -> SignedPart {
    SignedPart::Literal(text.into())
}

const SHA256: HashAlgorithm = HashAlgorithm::Sha256;
const HEX: SignatureEncoding = SignatureEncoding::Hex;
const BASE64: SignatureEncoding = SignatureEncoding::Base64;

fn github() -> HmacScheme {
    hmac("X-Hub-Signature-256", SHA256, SignatureFormat::Prefix("sha256=".into()), HEX)
}

fn standard() -> HmacScheme {
    HmacScheme {
        timestamp: stamp(StampPlace::Header("webhook-timestamp".into()), StampUnit::Seconds),
        content: vec![SignedPart::Id, lit("."), SignedPart::Stamp, lit("."), SignedPart::Body],
        key: KeyForm::Whsec,
        ..hmac("webhook-signature", SHA256, SignatureFormat::List("v1".into()), BASE64)
    }
}

fn stripe() -> HmacScheme {
    HmacScheme {
        timestamp: stamp(StampPlace::Kv("t".into()), StampUnit::Seconds),
        content: vec![SignedPart::Stamp, lit("."), SignedPart::Body],
        ..hmac("Stripe-Signature", SHA256, SignatureFormat::Kv("v1".into()), HEX)
    }
}

fn slack() -> HmacScheme {
    HmacScheme {
        timestamp: stamp(StampPlace::Header("X-Slack-Request-Timestamp".into()), StampUnit::Seconds),
        content: vec![lit("v0:"), SignedPart::Stamp, lit(":"), SignedPart::Body],
        ..hmac("X-Slack-Signature", SHA256, SignatureFormat::Prefix("v0=".into()), HEX)
    }
}

fn hubspot() -> HmacScheme {
    HmacScheme {
        timestamp: stamp(StampPlace::Header("X-HubSpot-Request-Timestamp".into()), StampUnit::Millis),
        content: vec![SignedPart::Method, SignedPart::Url, SignedPart::Body, SignedPart::Stamp],
        ..hmac("X-HubSpot-Signature-v3", SHA256, SignatureFormat::Raw, BASE64)
    }
}

fn zendesk() -> HmacScheme {
    HmacScheme {
        timestamp: stamp(StampPlace::Header("X-Zendesk-Webhook-Signature-Timestamp".into()), StampUnit::Iso8601),
        content: vec![SignedPart::Stamp, SignedPart::Body],
        ..hmac("X-Zendesk-Webhook-Signature", SHA256, SignatureFormat::Raw, BASE64)
    }
}

fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in pairs {
        map.append(
            name.parse::<HeaderName>().expect("header name"),
            HeaderValue::from_bytes(value.as_bytes()).expect("header value"),
        );
    }
    map
}

const URL: &str = "https://www.example.com/webhook_uri";

fn check(
    scheme: &HmacScheme,
    secrets: &[&str],
    pairs: &[(&str, &str)],
    body: &str,
    at: i64,
) -> Result<Verified, VerifyRefusal> {
    let headers = headers(pairs);
    let parts = RawRequest {
        method: "POST",
        url: URL,
        path: "/webhook_uri",
        query: "",
        headers: &headers,
        body: body.as_bytes(),
    };
    let secrets: Vec<String> = secrets.iter().map(|s| s.to_string()).collect();
    let (scheme, now) = (Scheme::Hmac(scheme.clone()), Timestamp::from_seconds(at));
    let whole = verify(&scheme, &secrets, &parts, now);
    let head = verify_head(&scheme, &secrets, &RawRequest { body: b"", ..parts }, now);
    assert!(whole.is_err() || head.is_ok(), "what is proven is not refused before its body is read: {head:?}");
    whole
}

#[test]
fn what_no_body_could_prove_is_refused_by_its_head() {
    let head = |scheme: &Scheme, secrets: &[&str], pairs: &[(&str, &str)], at| {
        let headers = headers(pairs);
        let parts =
            RawRequest { method: "POST", url: URL, path: "/webhook_uri", query: "", headers: &headers, body: b"" };
        let secrets: Vec<String> = secrets.iter().map(|s| s.to_string()).collect();
        verify_head(scheme, &secrets, &parts, Timestamp::from_seconds(at))
    };
    let scheme = Scheme::Hmac(standard());
    let good = [("webhook-id", SW1_ID), ("webhook-timestamp", "1614265330"), ("webhook-signature", SW1)];
    let now = 1_614_265_330;
    assert_eq!(head(&scheme, &[SW1_SECRET], &good, now), Ok(()));
    assert_eq!(head(&scheme, &[SW1_SECRET], &good[..2], now), Err(VerifyRefusal::Missing));
    assert_eq!(head(&scheme, &[SW1_SECRET], &good[1..], now), Err(VerifyRefusal::Missing));
    assert_eq!(head(&scheme, &[""], &good, now), Err(VerifyRefusal::NoSecret));
    assert_eq!(head(&scheme, &[SW1_SECRET], &good, now + 301), Err(VerifyRefusal::OutOfTime));
    let short = [good[0], good[1], ("webhook-signature", "v1,AAAA")];
    assert_eq!(head(&scheme, &[SW1_SECRET], &short, now), Err(VerifyRefusal::Mismatch));
    let shared = Scheme::SharedSecret { header: "x-token".into() };
    assert_eq!(head(&shared, &["s3cret"], &[("x-token", "s3cret")], 0), Ok(()));
    assert_eq!(head(&shared, &["s3cret"], &[("x-token", "guess")], 0), Err(VerifyRefusal::Mismatch));
    assert_eq!(head(&Scheme::None, &[], &[], 0), Ok(()));
}

struct Vector {
    name: &'static str,
    scheme: HmacScheme,
    secret: &'static str,
    headers: Vec<(&'static str, &'static str)>,
    body: &'static str,
    at: i64,
}

const SW1: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
const SW1_SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const SW1_ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
const SW1_BODY: &str = r#"{"test": 2432232314}"#;
const GITHUB_SECRET: &str = "It's a Secret to Everybody";
const GITHUB: &str = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
const STRIPE: &str = "t=1492774577,v1=799c4ba7bb339f3c8601adfd112f0e477c930a268be1243d341abb8286501c2f,v0=00";

fn vectors() -> Vec<Vector> {
    let v = |name, scheme, secret, headers: &[(&'static str, &'static str)], body, at| Vector {
        name,
        scheme,
        secret,
        headers: headers.to_vec(),
        body,
        at,
    };
    vec![
        v(
            "SW1",
            standard(),
            SW1_SECRET,
            &[("Webhook-Id", SW1_ID), ("Webhook-Timestamp", "1614265330"), ("Webhook-Signature", SW1)],
            SW1_BODY,
            1_614_265_330,
        ),
        v(
            "SW1 without prefix",
            standard(),
            "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            &[("webhook-id", SW1_ID), ("webhook-timestamp", "1614265330"), ("webhook-signature", SW1)],
            SW1_BODY,
            1_614_265_330,
        ),
        v(
            "SW2",
            standard(),
            "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD",
            &[
                ("webhook-id", "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk"),
                ("webhook-timestamp", "1649367553"),
                ("webhook-signature", "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw="),
            ],
            r#"{"email":"test@example.com","username":"test_user"}"#,
            1_649_367_553,
        ),
        v("GH1", github(), GITHUB_SECRET, &[("X-HUB-signature-256", GITHUB)], "Hello, World!", 0),
        v(
            "JI1",
            hmac("X-Hub-Signature", SHA256, SignatureFormat::Prefix("sha256=".into()), HEX),
            GITHUB_SECRET,
            &[("X-Hub-Signature", "sha256=a4771c39fbe90f317c7824e83ddef3caae9cb3d976c214ace1f2937e133263c9")],
            "Hello World!",
            0,
        ),
        v(
            "SL1",
            slack(),
            "8f742231b10e8888abcd99yyyzzz85a5",
            &[
                ("X-Slack-Request-Timestamp", "1531420618"),
                ("X-Slack-Signature", "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503"),
            ],
            "token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c",
            1_531_420_618,
        ),
        v(
            "HS4",
            hubspot(),
            "yyyyyyyy-yyyy-yyyy-yyyy-yyyyyyyyyyyy",
            &[
                ("X-HubSpot-Request-Timestamp", "1693657560000"),
                ("X-HubSpot-Signature-v3", "K36dawei4A+QBNolUOqo7s91KQDWQ5MXZ/QufNYuk/Y="),
            ],
            "{'example_field':'example_value'}",
            1_693_657_560,
        ),
        v(
            "HS5",
            hubspot(),
            "yyyyyyyy-yyyy-yyyy-yyyy-yyyyyyyyyyyy",
            &[
                ("X-HubSpot-Request-Timestamp", "1700000300000"),
                ("X-HubSpot-Signature-v3", "RnbPH7+UMKVkbV32P8bz450N4M56aPmcru1+D3kSDtw="),
            ],
            "{'example_field':'example_value'}",
            1_700_000_300,
        ),
        v(
            "Z1",
            zendesk(),
            "dGhpc19zZWNyZXRfaXNfZm9yX3Rlc3Rpbmdfb25seQ==",
            &[
                ("X-Zendesk-Webhook-Signature-Timestamp", "2021-03-25T05:09:27Z"),
                ("X-Zendesk-Webhook-Signature", "OhyuASlMysBOYZdC/6lrc3gA+Lv49zMKyTnxzdRguy4="),
            ],
            "{}",
            1_616_648_967,
        ),
        v("ST1", stripe(), "whsec_test_secret", &[("Stripe-Signature", STRIPE)], r#"{"id":"evt_1"}"#, 1_492_774_577),
        v(
            "SH1",
            hmac("X-Shopify-Hmac-SHA256", SHA256, SignatureFormat::Raw, BASE64),
            "hush",
            &[("X-Shopify-Hmac-SHA256", "VnKUjZsLuN5iZWjn5EntcBVCF9kMN43LglzCE1/GSeY=")],
            r#"{"id":1}"#,
            0,
        ),
        v(
            "TF1",
            hmac("Typeform-Signature", SHA256, SignatureFormat::Prefix("sha256=".into()), BASE64),
            "s3cr3t",
            &[("Typeform-Signature", "sha256=a+CnVOooj7YtPb5PsriMn298frA6jc5bJ54ldVH3vZ0=")],
            r#"{"event_id":"1"}"#,
            0,
        ),
        v(
            "IC1",
            hmac("X-Hub-Signature", HashAlgorithm::Sha1, SignatureFormat::Prefix("sha1=".into()), HEX),
            "s3cr3t",
            &[("X-Hub-Signature", "sha1=6831cbc218c93de1d759eef98a71efe2063c6358")],
            r#"{"type":"notification_event"}"#,
            0,
        ),
        v(
            "CV1",
            hmac("X-Convoy-Signature", HashAlgorithm::Sha512, SignatureFormat::Raw, HEX),
            "secret",
            &[(
                "X-Convoy-Signature",
                "c5dcfeda3f5a3154145234b2d0a533fc2b230f88da0fac0724619fd5cdde673ad6c474dfd5c02367768bd3b3bd3595cc860e606a37e2f9362e054d5aa14d7cc4",
            )],
            r#"{"b":{},"e":"123","a":1}"#,
            0,
        ),
        v(
            "NG1",
            hmac("X-Nango-Hmac-Sha256", SHA256, SignatureFormat::Raw, HEX),
            "test-secret-key",
            &[("X-Nango-Hmac-Sha256", "ce6f82d8555253066e19ba3525ebab872d906b9f4607481a889b991b29b17b3a")],
            r#"{"type":"sync","connectionId":"test-connection","providerConfigKey":"test-provider","syncName":"test-sync","model":"TestModel","responseResults":{"added":5,"updated":0,"deleted":0}}"#,
            0,
        ),
    ]
}

#[test]
fn published_vectors_pass() {
    for v in vectors() {
        let got = check(&v.scheme, &[v.secret], &v.headers, v.body, v.at);
        assert_eq!(got.map(|g| g.secret), Ok(Some(0)), "{}", v.name);
    }
}

#[test]
fn every_edit_and_loss_is_refused() {
    for v in vectors() {
        for at in 0..v.body.len() {
            let mut body = v.body.as_bytes().to_vec();
            body[at] ^= 1;
            let body = String::from_utf8(body).expect("ascii");
            let got = check(&v.scheme, &[v.secret], &v.headers, &body, v.at);
            assert_eq!(got, Err(VerifyRefusal::Mismatch), "{} edited at {at}", v.name);
        }
        for body in [format!("{}\r\n", v.body), String::new()] {
            assert_eq!(
                check(&v.scheme, &[v.secret], &v.headers, &body, v.at),
                Err(VerifyRefusal::Mismatch),
                "{}",
                v.name
            );
        }
        for gone in 0..v.headers.len() {
            let mut headers = v.headers.clone();
            headers.remove(gone);
            let got = check(&v.scheme, &[v.secret], &headers, v.body, v.at);
            assert_eq!(got, Err(VerifyRefusal::Missing), "{} without header {gone}", v.name);
            let mut headers = v.headers.clone();
            headers.push(v.headers[gone]);
            let got = check(&v.scheme, &[v.secret], &headers, v.body, v.at);
            assert_eq!(got, Err(VerifyRefusal::Doubled), "{} with header {gone} twice", v.name);
        }
        assert_eq!(
            check(&v.scheme, &["other secret", "b3RoZXI="], &v.headers, v.body, v.at),
            Err(VerifyRefusal::Mismatch)
        );
        assert_eq!(check(&v.scheme, &[], &v.headers, v.body, v.at), Err(VerifyRefusal::NoSecret));
        assert_eq!(check(&v.scheme, &[""], &v.headers, v.body, v.at), Err(VerifyRefusal::NoSecret));
    }
}

#[test]
fn every_live_secret_is_tried() {
    for v in vectors() {
        let got = check(&v.scheme, &["first", v.secret, "last"], &v.headers, v.body, v.at);
        assert_eq!(got.map(|g| g.secret), Ok(Some(1)), "{}", v.name);
    }
}

#[test]
fn time_is_checked_to_both_sides() {
    let t = 1_492_774_577;
    let at = |now| check(&stripe(), &["whsec_test_secret"], &[("Stripe-Signature", STRIPE)], r#"{"id":"evt_1"}"#, now);
    assert_eq!(at(t + 300).map(|v| v.skew_ms), Ok(Some(300_000)));
    assert_eq!(at(t - 300).map(|v| v.skew_ms), Ok(Some(-300_000)));
    for now in [t + 301, t - 301, i64::MAX / 2, i64::MIN / 2, 0] {
        assert_eq!(at(now), Err(VerifyRefusal::OutOfTime), "{now}");
    }
}

#[test]
fn odd_stamps_are_refused() {
    let (secret, body, now) = ("whsec_test_secret", "{}", 1_700_000_000i64);
    let sign = |t: &str| {
        let pieces = [SignedPiece::Bytes(Cow::Owned(format!("{t}.{body}").into_bytes()))];
        format!("t={t},v1={}", hex::encode(mac(SHA256, secret.as_bytes(), &pieces, "")))
    };
    let got = |t: &str| check(&stripe(), &[secret], &[("Stripe-Signature", &sign(t))], body, now);
    assert!(got("1700000000").is_ok(), "the signer of this test is sound");
    for t in [
        "abc",
        "-1",
        "-9223372036854775808",
        "1e18",
        "",
        " 1700000000",
        "+1700000000",
        "1700000000.0",
        "٣",
        "99999999999999999999",
    ] {
        assert!(matches!(got(t), Err(VerifyRefusal::Malformed)), "{t}: {:?}", got(t));
    }
    for t in ["1000000000000000", "1700000000000", "1700000600", "0"] {
        assert_eq!(got(t), Err(VerifyRefusal::OutOfTime), "{t}");
    }
    for t in ["2021-03-25", "2021-03-25 05:09:27Z", "20210325T050927Z", "now"] {
        assert_eq!(stamp_time(StampUnit::Iso8601, t), None, "{t}");
    }
}

#[test]
fn signature_lists() {
    let good = SW1;
    let got = |signature: &str| {
        let headers = [("webhook-id", SW1_ID), ("webhook-timestamp", "1614265330"), ("webhook-signature", signature)];
        check(&standard(), &[SW1_SECRET], &headers, SW1_BODY, 1_614_265_330)
    };
    assert!(got(&format!("v1,AAAA v1,BBBB {good} v1,CCCC")).is_ok());
    assert_eq!(got("v1,AAAA v1,BBBB v1,CCCC v1,DDDD"), Err(VerifyRefusal::Mismatch));
    assert_eq!(got("v1,"), Err(VerifyRefusal::Mismatch));
    assert_eq!(got(&good[..3 + 8]), Err(VerifyRefusal::Mismatch));
    assert_eq!(got(&good.replace("v1,", "v2,")), Err(VerifyRefusal::Missing));
    assert_eq!(got(&[good; 9].join(" ")), Err(VerifyRefusal::TooMany));
    assert_eq!(got(&"v1,é".repeat(2)), Err(VerifyRefusal::Malformed));
}

#[test]
fn odd_hex_is_refused() {
    for signature in [&GITHUB[..GITHUB.len() - 1], "sha256=", "sha256=zz", "sha1=757107ea", "757107ea"] {
        assert!(check(&github(), &[GITHUB_SECRET], &[("X-Hub-Signature-256", signature)], "Hello, World!", 0).is_err());
    }
}

#[test]
fn stamp_in_the_body() {
    let body = r#"{"webhookTimestamp":1700000000000,"a":1}"#;
    let scheme = HmacScheme {
        timestamp: stamp(StampPlace::Body("webhookTimestamp".into()), StampUnit::Millis),
        ..hmac("Linear-Signature", SHA256, SignatureFormat::Raw, HEX)
    };
    let sum = hex::encode(mac(SHA256, b"s", &[SignedPiece::Bytes(Cow::Borrowed(body.as_bytes()))], ""));
    let at = |now| check(&scheme, &["s"], &[("Linear-Signature", &sum)], body, now);
    assert!(at(1_700_000_060).is_ok());
    assert_eq!(at(1_700_000_301), Err(VerifyRefusal::OutOfTime));
    assert_eq!(check(&scheme, &["s"], &[("Linear-Signature", "00")], "not json", 0), Err(VerifyRefusal::Mismatch));
}

#[test]
fn shared_secret_and_none() {
    let scheme = Scheme::SharedSecret { header: "X-Gitlab-Token".into() };
    let got = |pairs: &[(&str, &str)], secrets: &[&str]| {
        let headers = headers(pairs);
        let parts = RawRequest { method: "POST", url: URL, path: "/", query: "", headers: &headers, body: b"" };
        verify(&scheme, &secrets.iter().map(|s| s.to_string()).collect::<Vec<_>>(), &parts, Timestamp(0))
    };
    assert!(got(&[("x-gitlab-token", "b")], &["a", "b"]).is_ok());
    assert_eq!(got(&[("x-gitlab-token", "bb")], &["a", "b"]), Err(VerifyRefusal::Mismatch));
    assert_eq!(got(&[], &["a"]), Err(VerifyRefusal::Missing));
    assert_eq!(got(&[("x-gitlab-token", "a"), ("x-gitlab-token", "a")], &["a"]), Err(VerifyRefusal::Doubled));
    assert_eq!(got(&[("x-gitlab-token", "")], &[""]), Err(VerifyRefusal::NoSecret));
    let headers = HeaderMap::new();
    let parts = RawRequest { method: "POST", url: URL, path: "/", query: "", headers: &headers, body: b"" };
    assert_eq!(verify(&Scheme::None, &[], &parts, Timestamp(0)), Ok(Verified::default()));
}

proptest! {
    #[test]
    fn garbage_is_refused_without_panic(
        values in proptest::collection::vec("[ -~]{0,80}", 1..4),
        raw in proptest::collection::vec(0x80u8..=0xff, 0..20),
        body in proptest::collection::vec(any::<u8>(), 0..100),
        now: i64,
    ) {
        let schemes = [github(), standard(), stripe(), slack(), hubspot(), zendesk()];
        for scheme in schemes {
            let mut map = HeaderMap::new();
            for name in [scheme.header.as_str(), "webhook-id", "webhook-timestamp", "X-Slack-Request-Timestamp"] {
                for value in &values {
                    if let Ok(value) = HeaderValue::from_str(value) {
                        map.append(name.parse::<HeaderName>().expect("name"), value);
                    }
                }
            }
            if let Ok(value) = HeaderValue::from_bytes(&raw) {
                map.insert(scheme.header.parse::<HeaderName>().expect("name"), value);
            }
            let parts = RawRequest { method: "POST", url: URL, path: "/", query: "", headers: &map, body: &body };
            let secrets = ["secret".to_owned(), "whsec_".to_owned()];
            prop_assert!(verify(&Scheme::Hmac(scheme), &secrets, &parts, Timestamp(now)).is_err());
        }
    }

    #[test]
    fn wrong_length_is_a_mismatch(cut in 1usize..64, body in proptest::collection::vec(any::<u8>(), 0..50)) {
        let sum = hex::encode(mac(SHA256, b"s", &[SignedPiece::Bytes(Cow::Borrowed(&body))], ""));
        let scheme = hmac("x-sig", SHA256, SignatureFormat::Raw, HEX);
        for text in [sum[..cut].to_owned(), format!("{sum}{}", &sum[..cut])] {
            let mut map = HeaderMap::new();
            map.insert("x-sig", HeaderValue::from_str(&text).expect("hex"));
            let parts = RawRequest { method: "POST", url: URL, path: "/", query: "", headers: &map, body: &body };
            let got = verify(&Scheme::Hmac(scheme.clone()), &["s".to_owned()], &parts, Timestamp(0));
            prop_assert_eq!(got, Err(VerifyRefusal::Mismatch));
        }
    }
}

/// The table of `docs/webhooks.md` says what headers look like; here it is held to that.
#[test]
fn the_documented_headers_prove_the_documented_body() {
    let docs = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/webhooks.md");
    let docs = std::fs::read_to_string(docs).expect("docs");
    let mut proven = Vec::new();
    for line in docs.lines() {
        let cells: Vec<&str> = line.split('|').map(|cell| cell.trim().trim_matches('`')).collect();
        let ["", format @ ("raw" | "prefix" | "kv" | "list"), written, value, ""] = cells.as_slice() else { continue };
        let more = match *format {
            "kv" => "timestamp: {from: kv, name: t, unit: s}, content: [ts, {lit: \".\"}, body]",
            _ => "content: [body]",
        };
        let verify =
            format!("{{scheme: hmac, algorithm: sha256, signature: {written}, {more}, key: text, secret: 'env:S'}}");
        let text = format!(
            "source: s\nbase_url: https://a.example\nstreams: [{{name: Thing, key: .id, list: {{get: /a}}}}]\n\
             webhooks: {{route: .a, verify: {verify}, map: [{{stream: Thing, record: .}}]}}\n"
        );
        let parsed = crate::definition::parse("s.yaml", &text, &|_| Ok("key".to_owned()));
        let (definition, _) = parsed.unwrap_or_else(|complaints| panic!("{text}{complaints:?}"));
        let scheme = &definition.webhooks.as_ref().expect("webhooks").verify.scheme;
        let headers = headers(&[("X-Signature", value)]);
        let at =
            |body: &'static [u8]| RawRequest { method: "POST", url: "", path: "", query: "", headers: &headers, body };
        let now = Timestamp::from_seconds(1_700_000_000);
        let secrets = ["key".to_owned()];
        assert!(verify_at(scheme, &secrets, &at(br#"{"a":1}"#), now).is_ok(), "{line}");
        assert!(verify_at(scheme, &secrets, &at(br#"{"a":2}"#), now).is_err(), "{line}");
        proven.push(*format);
    }
    assert_eq!(proven, ["raw", "prefix", "kv", "list"]);
}

fn verify_at(
    scheme: &Scheme,
    secrets: &[String],
    parts: &RawRequest<'_>,
    now: Timestamp,
) -> Result<Verified, VerifyRefusal> {
    super::verify(scheme, secrets, parts, now)
}
