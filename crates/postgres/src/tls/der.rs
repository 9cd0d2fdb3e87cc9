//! As much of DER as a certificate's signature algorithm, names and dates need.
//!
//! Promise: never panics; anything that is not minimal DER gives `None`.
//! Not here: what certificates mean.

/// One element: its tag and contents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Element<'a> {
    pub(super) tag: u8,
    pub(super) contents: &'a [u8],
}

pub(super) const SEQUENCE: u8 = 0x30;
pub(super) const OBJECT_IDENTIFIER: u8 = 0x06;

/// Elements that follow each other.
#[derive(Debug, Clone, Copy)]
pub(super) struct Elements<'a>(pub(super) &'a [u8]);

impl<'a> Elements<'a> {
    pub(super) fn next(&mut self) -> Option<Element<'a>> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, rest) = rest.split_first()?;
        let (length, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            0x81..=0x84 => {
                let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
                (
                    digits
                        .iter()
                        .fold(0, |length, digit| length << 8 | usize::from(*digit)),
                    rest,
                )
            }
            _ => return None,
        };
        let (contents, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some(Element { tag, contents })
    }

    pub(super) fn next_tagged(&mut self, tag: u8) -> Option<&'a [u8]> {
        self.next()
            .filter(|element| element.tag == tag)
            .map(|element| element.contents)
    }
}

/// A certificate's two parts of interest.
pub(super) struct Certificate<'a> {
    /// TBSCertificate's contents.
    pub(super) body: &'a [u8],
    /// signatureAlgorithm's contents: an identifier and its parameters.
    pub(super) signature_algorithm: &'a [u8],
}

pub(super) fn certificate(der: &[u8]) -> Option<Certificate<'_>> {
    let mut parts = Elements(Elements(der).next_tagged(SEQUENCE)?);
    let body = parts.next_tagged(SEQUENCE)?;
    let signature_algorithm = parts.next_tagged(SEQUENCE)?;
    Some(Certificate {
        body,
        signature_algorithm,
    })
}

/// notBefore and notAfter as seconds since 1970.
pub(super) fn validity(body: &[u8]) -> Option<(i64, i64)> {
    let mut fields = from_issuer(body)?;
    let _issuer = fields.next()?;
    let mut dates = Elements(fields.next_tagged(SEQUENCE)?);
    Some((time(dates.next()?)?, time(dates.next()?)?))
}

/// Whether issuer and subject are one.
pub(super) fn is_self_issued(body: &[u8]) -> Option<bool> {
    let mut fields = from_issuer(body)?;
    let (issuer, _dates, subject) = (fields.next()?, fields.next()?, fields.next()?);
    Some(issuer == subject)
}

/// The fields from the issuer on: the version, which is optional, serial number and signature algorithm come before.
fn from_issuer(body: &[u8]) -> Option<Elements<'_>> {
    let mut fields = Elements(body);
    if fields.next()?.tag == 0xa0 {
        let _serial = fields.next()?;
    }
    let _algorithm = fields.next()?;
    Some(fields)
}

fn time(element: Element<'_>) -> Option<i64> {
    let text = std::str::from_utf8(element.contents).ok()?.strip_suffix('Z')?;
    let full = match element.tag {
        // UTCTime has two digits of the year: 50 and above belong to the last century (RFC 5280, 4.1.2.5.1).
        0x17 if text.get(..2)? >= "50" => format!("19{text}"),
        0x17 => format!("20{text}"),
        0x18 => text.to_owned(),
        _ => return None,
    };
    let moment = jiff::civil::DateTime::strptime("%Y%m%d%H%M%S", full).ok()?;
    jiff::tz::TimeZone::UTC
        .to_timestamp(moment)
        .ok()
        .map(|moment| moment.as_second())
}
