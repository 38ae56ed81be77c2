//! What the rules of the table that marks packets are made of.

use std::borrow::Cow;

use lvs_model::Family;
use nftables::{
    expr::{
        BinaryOperation, Expression, NamedExpression, Payload, PayloadField, Socket, SocketAttr,
    },
    schema::{NfListObject, Rule},
    stmt::{JumpTarget, Statement},
    types::NfFamily,
};

use super::super::ruleset::{equals, text};

/// The name of the table.
pub(in super::super) const TABLE: &str = "lvs-operator-strays";
/// The chain of all packets.
pub(super) const PREROUTING: &str = "prerouting";
pub(super) const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

pub(super) fn rule(
    chain: &'static str,
    statements: Vec<Statement<'static>>,
) -> NfListObject<'static> {
    NfListObject::Rule(Rule {
        family: NfFamily::INet,
        table: TABLE.into(),
        chain: chain.into(),
        expr: Cow::Owned(statements),
        ..Rule::default()
    })
}

pub(super) fn jump(target: &'static str) -> JumpTarget<'static> {
    JumpTarget {
        target: target.into(),
    }
}

/// Matches packets that begin a TCP connection.
pub(super) fn is_syn() -> Statement<'static> {
    let flags = BinaryOperation::AND(payload("tcp", "flags"), text("syn"));
    let flags = Expression::BinaryOperation(Box::new(flags));
    equals(flags, text("syn"))
}

pub(super) fn payload(protocol: &'static str, field: &'static str) -> Expression<'static> {
    let field = PayloadField {
        protocol: protocol.into(),
        field: field.into(),
    };
    Expression::Named(NamedExpression::Payload(Payload::PayloadField(field)))
}

pub(super) fn socket(key: SocketAttr, value: u32) -> Statement<'static> {
    let socket = Socket {
        key: Cow::Owned(key),
    };
    let socket = Expression::Named(NamedExpression::Socket(socket));
    equals(socket, Expression::Number(value))
}
