//! The table of connections that went on.

use super::{keeper::Keeper, kinds::Kept};

/// The sums of all rounds.
pub(super) struct ConnectionRow {
    pub keeper: Keeper,
    pub forwarding: &'static str,
    pub family: &'static str,
    pub kept: Kept,
}

/// Prints the rows in order.
pub(super) fn print(rows: &[ConnectionRow]) -> String {
    let mut text = format!(
        "{:<17} {:<5} {:<5} {:>15} {:>15} {:>15} {:>15}\n",
        "connections", "", "", "idle", "half sent", "busy", "young"
    );
    for ConnectionRow {
        keeper,
        forwarding,
        family,
        kept,
    } in rows
    {
        let Kept {
            idle,
            half_sent,
            busy,
            young,
        } = kept;
        text += &format!(
            "{keeper:<17} {forwarding:<5} {family:<5} {idle:>15} {half_sent:>15} {busy:>15} {young:>15}\n"
        );
    }
    text
}
