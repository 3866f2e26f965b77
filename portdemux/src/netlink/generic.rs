//! Families of generic netlink, whose attributes are read as they lie (Linux `Documentation/netlink/specs/`).

use std::io;

use netlink_packet_core::{
    DecodeError, DefaultNla, Emitable, NLA_HEADER_SIZE, NlaBuffer, NlasIterator,
    ParseableParametrized,
};
use netlink_packet_generic::{
    GenlFamily, GenlHeader, GenlMessage,
    ctrl::{GenlCtrl, GenlCtrlCmd, nlas::GenlCtrlAttrs},
};
use netlink_sys::protocols::NETLINK_GENERIC;
use rustix::io::Errno;

use super::{Asked, is};

/// A message of a family: its command, and its attributes as they lie.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Raw {
    command: u8,
    attributes: Vec<u8>,
}

impl GenlFamily for Raw {
    fn family_name() -> &'static str {
        "whichever it is sent to"
    }

    fn command(&self) -> u8 {
        self.command
    }

    fn version(&self) -> u8 {
        1
    }
}

impl Emitable for Raw {
    fn buffer_len(&self) -> usize {
        self.attributes.len()
    }

    fn emit(&self, buffer: &mut [u8]) {
        buffer.copy_from_slice(&self.attributes);
    }
}

impl ParseableParametrized<[u8], GenlHeader> for Raw {
    fn parse_with_param(attributes: &[u8], header: GenlHeader) -> Result<Self, DecodeError> {
        Ok(Self {
            command: header.cmd,
            attributes: attributes.to_vec(),
        })
    }
}

/// Asks a family; returns the attributes of each answer, or nothing if the kernel has no such family.
///
/// # Errors
///
/// What the kernel says instead of an answer, or an answer that is none.
pub(crate) fn ask(
    family: &str,
    command: u8,
    asked: Asked,
    attributes: &[DefaultNla],
) -> io::Result<Option<Vec<Vec<u8>>>> {
    let Some(id) = number(family)? else {
        return Ok(None);
    };
    let mut question = GenlMessage::from_payload(Raw {
        command,
        attributes: emitted(attributes),
    });
    question.set_resolved_family_id(id);
    question.finalize();
    let answers = super::ask(NETLINK_GENERIC, asked, question)?;
    Ok(Some(
        answers
            .into_iter()
            .map(|answer| answer.payload.attributes)
            .collect(),
    ))
}

/// The number by which messages for a family are known.
fn number(family: &str) -> io::Result<Option<u16>> {
    let mut question = GenlMessage::from_payload(GenlCtrl {
        cmd: GenlCtrlCmd::GetFamily,
        nlas: vec![GenlCtrlAttrs::FamilyName(family.into())],
    });
    question.finalize();
    let answers = match super::ask(NETLINK_GENERIC, Asked::One, question) {
        Ok(answers) => answers,
        Err(error) if is(&error, Errno::NOENT) || is(&error, Errno::PROTONOSUPPORT) => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let mut attributes = answers.iter().flat_map(|answer| &answer.payload.nlas);
    Ok(attributes.find_map(|attribute| {
        if let GenlCtrlAttrs::FamilyId(id) = attribute {
            Some(*id)
        } else {
            None
        }
    }))
}

/// Some attributes as they lie.
pub(crate) fn emitted(attributes: &[DefaultNla]) -> Vec<u8> {
    let mut bytes = vec![0; attributes.buffer_len()];
    attributes.emit(&mut bytes);
    bytes
}

/// The attributes of a kind among some, up to where they end early.
pub(crate) fn of_kind(attributes: &[u8], kind: u16) -> impl Iterator<Item = &[u8]> {
    NlasIterator::new(attributes)
        .map_while(Result::ok)
        .filter(move |attribute: &NlaBuffer<&[u8]>| attribute.kind() == kind)
        .filter_map(|attribute| {
            let length = attribute.length().into();
            attribute.into_inner().get(NLA_HEADER_SIZE..length)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_is_asked_for_by_its_name_and_may_not_be_there() {
        // The one that knows the others has a number of its own.
        assert_eq!(number("nlctrl").unwrap(), Some(0x10));
        assert_eq!(number("none-such").unwrap(), None);
        assert_eq!(ask("none-such", 1, Asked::All, &[]).unwrap(), None);
    }

    #[test]
    fn attributes_are_read_by_their_kind_up_to_where_they_end_early() {
        let attributes = [(1, vec![7]), (2, vec![8, 9]), (1, vec![10])];
        let attributes = attributes.map(|(kind, value)| DefaultNla::new(kind, value));
        let bytes = emitted(&attributes);
        let found = |bytes: &[u8]| of_kind(bytes, 1).map(<[u8]>::to_vec).collect::<Vec<_>>();
        assert_eq!(found(&bytes), [vec![7], vec![10]]);
        for length in 0..bytes.len() - 3 {
            assert!(found(&bytes[..length]).len() < 2);
        }
    }
}
