//! Who owns what, and where it is reached: told on the board that all processes read.
//!
//! It only tells where to ask. What keeps two owners apart is the fence of the changelog and the claim in the log.

use crate::connectors::kafka::board::Board;
use crate::engine::source::Failure;
use crate::engine::time::{Clock, entropy};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// A process as the others see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// Which process.
    pub process: String,
    /// Where it is reached.
    pub url: String,
}

/// The key of a partition's owner.
pub(super) fn partition_key(partition: i32) -> String {
    format!("owner/{partition}")
}

/// The owner of a partition, as far as the board says.
pub(super) fn owner(board: &Board, partition: i32) -> Option<Owner> {
    serde_json::from_str(&board.get(&partition_key(partition))?).ok()
}

/// Prefix of secrets that processes propose.
const PROPOSED: &str = "secret/proposed/";
/// The secret that was chosen.
const CHOSEN: &str = "secret/chosen";
/// How long proposals may take to be seen by everybody.
const SETTLE: Duration = Duration::from_secs(1);

/// The secret of the installation, made by whoever comes first. Processes that start at the same moment see each other's
/// proposals and take the least of them; who comes later takes what was chosen.
pub(super) async fn secret(board: &Board, process: &str, clock: &dyn Clock) -> Result<[u8; 32], Failure> {
    if let Some(chosen) = board.get(CHOSEN) {
        return read(&chosen);
    }
    let told = |e: crate::engine::log::Error| failure(&e.to_string());
    board.put(&format!("{PROPOSED}{process}"), &hex::encode(entropy())).await.map_err(told)?;
    clock.sleep(SETTLE).await;
    let notes = board.all();
    let least = notes.iter().filter(|(key, _)| key.starts_with(PROPOSED)).map(|(_, secret)| secret).min();
    let chosen = board.get(CHOSEN).or_else(|| least.cloned()).ok_or_else(|| failure("the board shows no secret"))?;
    board.put(CHOSEN, &chosen).await.map_err(told)?;
    read(&chosen)
}

fn read(text: &str) -> Result<[u8; 32], Failure> {
    let bytes = hex::decode(text).ok().and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
    bytes.ok_or_else(|| failure("the secret on the board is damaged"))
}

fn failure(why: &str) -> Failure {
    let message = format!("the secret of the installation cannot be had: {why}");
    Failure::passing("no_secret", message)
}
