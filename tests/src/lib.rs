//! What the tests of the whole share: the oracle, histories for it, the comparison with an engine, the program being
//! served, and tools of others.

pub mod attacker;
pub mod broker;
pub mod compare;
pub mod contacts;
pub mod crash;
pub mod crm;
pub mod damage;
pub mod elsewhere;
pub mod feed;
pub mod history;
pub mod mirror;
pub mod oidc;
pub mod oracle;
pub mod orders;
pub mod process;
pub mod retraction;
pub mod salesforce;
pub mod served;
pub mod serving;
pub mod steps;
pub mod tools;
pub mod topic;
pub mod wire;

pub use syncline_ledger as ledger;
