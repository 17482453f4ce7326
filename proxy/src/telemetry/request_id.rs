//! `x-request-id`, by which the caller's log and the callee's meet.
//!
//! Whoever comes first makes one, everybody after keeps it; a value that is neither a UUID nor plain hex is replaced, so
//! that nothing but an identifier gets into logs and answers.

use http::{HeaderMap, HeaderValue};
use rand::RngCore;

use crate::codes::X_REQUEST_ID;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId(HeaderValue);

impl RequestId {
    /// The id that the request came with if it is one, else a new one.
    pub fn keep_or_make(headers: &HeaderMap) -> Self {
        let mut values = headers.get_all(&X_REQUEST_ID).iter();
        match (values.next(), values.next()) {
            (Some(only), None) if is_uuid(only.as_bytes()) || is_hex(only.as_bytes()) => {
                Self(only.clone())
            }
            _ => Self::random(),
        }
    }

    /// A UUID of version 4 (RFC 9562 §5.4).
    pub fn random() -> Self {
        let mut bytes = [0; 16];
        rand::rng().fill_bytes(&mut bytes);
        let random = u128::from_be_bytes(bytes);
        let versioned = (random & !(0xf << 76) & !(0b11 << 62)) | (0x4 << 76) | (0b10 << 62);
        let hex = format!("{versioned:032x}");
        let mut text = String::with_capacity(36);
        for (index, digit) in hex.chars().enumerate() {
            if matches!(index, 8 | 12 | 16 | 20) {
                text.push('-');
            }
            text.push(digit);
        }
        // Hex digits and dashes always are a header value.
        Self(HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("0")))
    }

    pub fn as_str(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }

    pub fn as_header(&self) -> &HeaderValue {
        &self.0
    }
}

fn is_uuid(text: &[u8]) -> bool {
    text.len() == 36
        && text.iter().enumerate().all(|(index, byte)| match index {
            8 | 13 | 18 | 23 => *byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

fn is_hex(text: &[u8]) -> bool {
    (16..=64).contains(&text.len()) && text.iter().all(u8::is_ascii_hexdigit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(values: &[&'static str]) -> HeaderMap {
        let named = |value: &&'static str| (X_REQUEST_ID.clone(), HeaderValue::from_static(value));
        values.iter().map(named).collect()
    }

    #[test]
    fn an_identifier_is_kept() {
        for id in [
            "0f8fad5b-d9cb-469f-a165-70867728950e",
            "0123456789abcdef0123456789ABCDEF",
        ] {
            assert_eq!(RequestId::keep_or_make(&with(&[id])).as_str(), id);
        }
    }

    #[test]
    fn anything_else_is_replaced_by_a_uuid() {
        let cases: [&[&'static str]; 6] = [
            &[],
            &[""],
            &["0123"],
            &["../../etc/passwd0123"],
            &["0f8fad5b-d9cb-469f-a165-70867728950e ; drop"],
            &["0123456789abcdef", "0123456789abcdef"],
        ];
        for values in cases {
            let id = RequestId::keep_or_make(&with(values));
            assert!(is_uuid(id.as_str().as_bytes()), "{values:?}");
            assert!(!values.contains(&id.as_str()));
        }
    }

    #[test]
    fn a_new_id_is_of_version_4_and_differs() {
        let (one, other) = (RequestId::random(), RequestId::random());
        assert_ne!(one, other);
        assert_eq!(&one.as_str()[14..15], "4");
        assert!(["8", "9", "a", "b"].contains(&&one.as_str()[19..20]));
    }
}
